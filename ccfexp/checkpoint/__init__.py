"""Files of models: adapters in peft's format, and published checkpoints brought into ours."""

from ccfexp.checkpoint.adapter_files import attach_saved_adapter, load_adapter, lora_config_of, save_adapter

__all__ = ["attach_saved_adapter", "load_adapter", "lora_config_of", "save_adapter"]
