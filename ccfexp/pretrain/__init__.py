"""How the shipped weights are made: phantom encoders, evaluators and the base that adapters start from.

``python -m ccfexp.pretrain --help`` lists the stages; every shipped file's model card repeats its command.
"""
