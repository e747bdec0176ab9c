"""Training: `Trainer` with its callbacks, history, metrics and progress bar."""

from .callbacks import (Callback, CSVLogger, EarlyStopping, LambdaCallback, LearningRateScheduler, ModelCheckpoint,
                        ReduceLROnPlateau, TerminateOnNaN)
from .class_metrics import AUC, F1, Accuracy, ConfusionMatrix, Perplexity, Precision, Recall, TopKAccuracy
from .distributed import DistributedTrainer
from .history import History
from .metric import Metric
from .metrics import METRICS, get_metric
from .progress import ProgressBar, TqdmProgress
from .schedule import LearningRateSchedule
from .trainer import Trainer
from .value_metrics import R2, MeanAbsoluteError, MeanSquaredError

__all__ = [
    "AUC", "F1", "METRICS", "R2", "Accuracy", "CSVLogger", "Callback", "ConfusionMatrix", "DistributedTrainer", "EarlyStopping",
    "History",
    "LambdaCallback", "LearningRateSchedule", "LearningRateScheduler", "MeanAbsoluteError", "MeanSquaredError",
    "Metric", "ModelCheckpoint", "Perplexity", "Precision", "ProgressBar", "Recall", "ReduceLROnPlateau",
    "TerminateOnNaN", "TopKAccuracy", "TqdmProgress", "Trainer", "get_metric",
]
