"""Files of models: adapters in peft's format, and published checkpoints brought into ours."""

from ccfexp.checkpoint.adapter_files import load_adapter, lora_config_of, save_adapter

__all__ = ["load_adapter", "lora_config_of", "save_adapter"]
