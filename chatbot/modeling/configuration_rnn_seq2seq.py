"""Configuration of the recurrent encoder-decoder with attention.

Each field is a published idea; docs/model.md gives its source and when to choose what.
"""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

CellType = Literal["lstm", "gru"]
Bridge = Literal["zero", "copy", "linear"]
AttentionType = Literal["none", "dot", "general", "concat", "additive"]
AttentionWindow = Literal["global", "recent", "local-m", "local-p"]
Quantization = Literal["none", "int8"]


@strict
class RnnSeq2SeqConfig(PreTrainedConfig):
    """Sizes and choices of one `RnnSeq2SeqModel`.

    Args:
        vocab_size: Tokens of the source.
        decoder_vocab_size: Tokens of the target. None: one vocabulary serves both.
        embedding_size: Width of token embeddings.
        hidden_size: Width of the decoder's state and of the output layer's input.
        encoder_hidden_size: Width of the encoder's state per direction. None: such that the
            encoder's output is as wide as the decoder.
        encoder_layers: Recurrent layers of the encoder.
        decoder_layers: Recurrent layers of the decoder.
        cell_type: `lstm` (Hochreiter & Schmidhuber 1997) or `gru` (Cho et al. 2014).
        bidirectional: Whether the encoder also reads from the end (Schuster & Paliwal 1997).
        bridge: How the decoder's first state comes from the encoder's last one, hidden and cell:
            `zero`, `copy` (Sutskever et al. 2014), `linear` (with tanh, Cho et al. 2014).
        attention: `none`; `dot`, `general`, `concat` (Luong et al. 2015: the current state asks,
            after the step); `additive` (Bahdanau et al. 2015: the previous state asks, the
            context joins the recurrent input).
        attention_window: `global`; `recent` (the last D source positions); `local-m`, `local-p`
            (Luong et al. 2015, section 3.2). `local-m` assumes a monotone alignment, which
            translation of related languages has and conversation seldom does.
        attention_window_size: D, in source positions. Local windows reach D to either side.
        input_feeding: Whether the last attentional vector joins the next input (Luong et al. 2015,
            section 3.3). Off, the whole target runs in one recurrent call.
        copy: Whether the attention also points, so that a reply can hold words of the source that
            the model never learned (Gu et al. 2016, See et al. 2017):
            p(w) = g softmax(w) + (1 - g) (attention on the source positions that hold w).
        residual: Whether layers after the first add their input to their output.
        layer_norm: Whether each layer's output is normalised (Ba et al. 2016).
        dropout: On embeddings, between layers and before the output layer.
        embedding_dropout: Share of word types dropped from a pass (Gal & Ghahramani 2016).
        recurrent_dropout: Share of hidden-to-hidden weights dropped, the same at each step
            (Merity et al. 2018).
        share_embeddings: Whether encoder and decoder share one embedding matrix.
        tie_word_embeddings: Whether the decoder's embeddings are the output layer too (Press &
            Wolf 2017).
        max_source_positions: Source tokens that training showed; a chat cuts its history to them.
            The model itself reads any length.
        initializer_range: Standard deviation of the first embeddings.
        quantization: `int8`: weights and activations in 8 bits, for the CPU, not to be trained.
        format_version: Layout of the saved weights.

    Raises:
        ValueError: A combination that no published model has; the message names the field, its
            value and what is allowed.

    Example:
        >>> from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqModel
        >>> model = RnnSeq2SeqModel(RnnSeq2SeqConfig(attention="dot"))  # with random weights
        >>> model.config.hidden_size
        512
    """

    model_type = "rnn_seq2seq"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {"num_hidden_layers": "decoder_layers"}

    vocab_size: int = 4096
    decoder_vocab_size: int | None = None
    embedding_size: int = 512
    hidden_size: int = 512
    encoder_hidden_size: int | None = None
    encoder_layers: int = 1
    decoder_layers: int = 1
    cell_type: CellType = "lstm"
    bidirectional: bool = False
    bridge: Bridge = "copy"
    attention: AttentionType = "general"
    attention_window: AttentionWindow = "global"
    attention_window_size: int = 10
    input_feeding: bool = False
    copy: bool = False
    residual: bool = False
    layer_norm: bool = False
    dropout: float | int = 0.1
    embedding_dropout: float | int = 0.0
    recurrent_dropout: float | int = 0.0
    share_embeddings: bool = True
    tie_word_embeddings: bool = True
    max_source_positions: int = 96
    initializer_range: float | int = 0.05
    quantization: Quantization = "none"
    format_version: int = 1
    use_cache: bool = True
    is_encoder_decoder: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3
    decoder_start_token_id: int | None = 2

    def __post_init__(self, **kwargs: object) -> None:
        self._check_sizes()
        if self.encoder_hidden_size is None:
            self.encoder_hidden_size = max(1, self.hidden_size // self.encoder_directions)
        if self.decoder_vocab_size is None:
            self.decoder_vocab_size = self.vocab_size
        self._check_combinations()
        super().__post_init__(**kwargs)

    @property
    def encoder_directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def memory_size(self) -> int:
        """Width of an encoder output: both directions side by side."""
        return self.encoder_hidden_size * self.encoder_directions

    def _check_sizes(self) -> None:
        sizes = ["vocab_size", "decoder_vocab_size", "embedding_size", "hidden_size"]
        sizes += (
            "encoder_hidden_size",
            "encoder_layers",
            "decoder_layers",
            "attention_window_size",
        )
        for name in sizes:
            value = getattr(self, name)
            if value is not None and value < 1:
                _refuse(name, value, "a whole number of at least 1")
        for name in ("dropout", "embedding_dropout", "recurrent_dropout"):
            if not 0 <= getattr(self, name) < 1:
                _refuse(name, getattr(self, name), "a share from 0 up to, but not including, 1")
        if self.format_version != 1:
            _refuse("format_version", self.format_version, "1; a newer package may read this model")

    def _check_combinations(self) -> None:
        if self.attention == "dot" and self.memory_size != self.hidden_size:
            widths = f"encoder output {self.memory_size}, hidden_size {self.hidden_size}"
            _refuse("attention", "dot", f"general or concat where widths differ ({widths})")
        if self.attention_window in ("local-m", "local-p") and self.attention == "additive":
            _refuse(
                "attention_window",
                self.attention_window,
                "global or recent with additive attention",
            )
        if self.attention_window != "global" and self.attention == "none":
            _refuse("attention_window", self.attention_window, "global without attention")
        if self.input_feeding and self.attention in ("none", "additive"):
            _refuse("input_feeding", True, f"False with attention {self.attention!r}")
        if self.copy and self.attention == "none":
            _refuse("copy", True, "False without attention")
        if self.copy and self.decoder_vocab_size != self.vocab_size:
            _refuse("copy", True, "False with two vocabularies")
        if self.bridge == "copy" and self.encoder_layers != self.decoder_layers:
            depths = f"encoder_layers {self.encoder_layers}, decoder_layers {self.decoder_layers}"
            _refuse("bridge", "copy", f"linear or zero where depths differ ({depths})")
        if self.bridge == "copy" and self.memory_size != self.hidden_size:
            widths = f"encoder output {self.memory_size}, hidden_size {self.hidden_size}"
            _refuse("bridge", "copy", f"linear or zero where widths differ ({widths})")
        if self.share_embeddings and self.decoder_vocab_size != self.vocab_size:
            vocabularies = (
                f"vocab_size {self.vocab_size}, decoder_vocab_size {self.decoder_vocab_size}"
            )
            _refuse("share_embeddings", True, f"False with two vocabularies ({vocabularies})")
        if self.tie_word_embeddings and self.embedding_size != self.hidden_size:
            widths = f"embedding_size {self.embedding_size}, hidden_size {self.hidden_size}"
            _refuse("tie_word_embeddings", True, f"False where the two widths differ ({widths})")


def _refuse(field: str, value: object, allowed: str) -> None:
    raise ValueError(f"{field}={value!r} is not possible; allowed: {allowed}.")
