"""Configuration: YAML files that compose, checked against a schema of nested pydantic models."""
from src.config.load import config_to_dict, load_config, with_settings
from src.config.schema import Config

__all__ = ["Config", "config_to_dict", "load_config", "with_settings"]
