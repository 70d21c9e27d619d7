"""Which model to answer with when nobody names one: one's own, else that of the demo."""

import argparse
import logging

from config import Config, TrainingConfig
from engine.runs import newest_run
from options import config_from_arguments

log = logging.getLogger(__name__)


def serving_config(arguments: argparse.Namespace) -> Config:
    """The settings of a command that answers; right after `make demo` those of the demo, so that its model can be tried.

    That is so only where nothing was named (no model, folder or database) and no model of one's own was trained yet.
    """
    config = config_from_arguments(arguments)
    is_default = config.training.model_folder == TrainingConfig.model_folder and config.database.is_embedded
    if arguments.demo or config.service.model is not None or not is_default or newest_run(config.training.model_folder):
        return config
    demo = config_from_arguments(argparse.Namespace(**{**vars(arguments), "demo": True}))
    if newest_run(demo.training.model_folder) is None:
        return config
    log.info(
        "no model of your own in %s yet: answering with the demo's (--demo); train.py makes one", config.training.model_folder
    )
    return demo
