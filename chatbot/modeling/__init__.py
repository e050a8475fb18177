"""The model. Importing this registers it with transformers' Auto classes.

The files of this folder go to the Hub as they are, so they import only torch, transformers, the
standard library and one another.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

from .cache_rnn_seq2seq import RnnSeq2SeqCache
from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .modeling_rnn_seq2seq import (
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqModel,
    RnnSeq2SeqPreTrainedModel,
)
from .quantization_rnn_seq2seq import quantize

# with this package installed, loading needs no trust_remote_code ...
AutoConfig.register(RnnSeq2SeqConfig.model_type, RnnSeq2SeqConfig)
AutoModel.register(RnnSeq2SeqConfig, RnnSeq2SeqModel)
AutoModelForSeq2SeqLM.register(RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration)
# ... and without it, the code travels with the weights
RnnSeq2SeqConfig.register_for_auto_class()
RnnSeq2SeqModel.register_for_auto_class("AutoModel")
RnnSeq2SeqForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")

__all__ = [
    "RnnSeq2SeqCache",
    "RnnSeq2SeqConfig",
    "RnnSeq2SeqForConditionalGeneration",
    "RnnSeq2SeqModel",
    "RnnSeq2SeqPreTrainedModel",
    "quantize",
]
