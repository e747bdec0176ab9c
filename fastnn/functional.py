"""The operations under the names users know: ``import fastnn.functional as F``."""

from .ops.activation import *
from .ops.attention import *
from .ops.augment import *
from .ops.conv import *
from .ops.conv_transpose import *
from .ops.dropout import *
from .ops.einsum import *
from .ops.embedding import *
from .ops.index import *
from .ops.linear import *
from .ops.loss import *
from .ops.margin_loss import *
from .ops.local_response import *
from .ops.math import *
from .ops.norm import *
from .ops.penalty import *
from .ops.pool import *
from .ops.pool1d import *
from .ops.probability_loss import *
from .ops.recurrent import *
from .ops.reduce import *
from .ops.resample import *
from .ops.shape import *
from .ops.softmax import *
from .ops.window import *
