"""Recurrent encoder-decoder with attention (Sutskever 2014, Cho 2014, Bahdanau 2015, Luong 2015).

B is the batch, S source positions, T target positions, H the decoder's width, M the width of an
encoder output. State travels in arguments, outputs and the cache, never on modules.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import initialization
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
    ModelOutput,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
)
from transformers.utils.generic import can_return_tuple

from .attention_rnn_seq2seq import Attention, AttentionMemory
from .cache_rnn_seq2seq import RnnSeq2SeqCache
from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .copying_rnn_seq2seq import Pointing, label_loss, mixed_log_probabilities
from .dialogues_rnn_seq2seq import read_turns, round_up
from .generation_rnn_seq2seq import RnnSeq2SeqGenerationMixin
from .products_rnn_seq2seq import Linear
from .quantization_rnn_seq2seq import QuantizablePreTrainedModel, quantize_modules
from .recurrent_rnn_seq2seq import RnnSeq2SeqRecurrentStack, State

# The states of all layers, and under input feeding the last attentional vector.
States = list[State]
# What the decoder may look at; None without attention.
Memory = AttentionMemory | None
# The state to go on from; None where nothing is kept.
Past = RnnSeq2SeqCache | None
# Weights of each recurrent layer, for a run of steps.
Weights = list[list[Tensor]]


def shift_tokens_right(labels: Tensor, pad_token_id: int, decoder_start_token_id: int) -> Tensor:
    """Decoder input of teacher forcing: `<go>`, then all labels but the last, padding for -100."""
    shifted = labels.roll(1, dims=1)
    shifted[:, 0] = decoder_start_token_id
    return shifted.masked_fill(shifted == -100, pad_token_id)


def embed(
    embedding: nn.Embedding, tokens: Tensor, config: RnnSeq2SeqConfig, training: bool
) -> Tensor:
    """Embeddings of tokens; while training, whole word types and single values are dropped."""
    vectors = embedding(tokens)
    if training and config.embedding_dropout:
        kept = F.dropout(vectors.new_ones(embedding.num_embeddings), config.embedding_dropout)
        vectors = vectors * kept[tokens][..., None]
    return F.dropout(vectors, config.dropout, training)


def bring_forward(mask: Tensor) -> tuple[Tensor, Tensor]:
    """How real tokens come to the front, in order, and back to their places.

    Args:
        mask: True where a token is real, (B, S).

    Returns:
        Indices (B, S) for `gather`: real tokens first; then each token's place among them, 0 for
        padding.
    """
    place = torch.arange(mask.shape[1], 0, -1, device=mask.device)
    # topk on distinct keys, since a stable argsort cannot be exported to ONNX
    forward = torch.where(mask, place, -place).topk(mask.shape[1], dim=1).indices
    return forward, (mask.long().cumsum(1) - 1).clamp(min=0)


def gather_steps(sequence: Tensor, indices: Tensor) -> Tensor:
    """`sequence` (B, S, width) with its positions rearranged by `indices` (B, S)."""
    return sequence.gather(1, indices[..., None].expand(-1, -1, sequence.shape[-1]))


class LightOutput(ModelOutput):
    """A `ModelOutput` that does not look all its fields up for each of them."""

    def __setattr__(self, name: str, value: object) -> None:
        if value is not None:
            OrderedDict.__setitem__(self, name, value)
        object.__setattr__(self, name, value)

    def __post_init__(self) -> None:
        if not isinstance(next(iter(self.values()), None), Tensor):
            super().__post_init__()  # all fields may have come as one dict, or in pairs


@dataclass
class RnnSeq2SeqEncoderOutput(LightOutput, BaseModelOutput):
    """What the encoder leaves behind.

    Args:
        last_hidden_state: Encoder outputs, 0 on padding, (B, S, M).
        hidden_states: With `output_hidden_states`: embeddings and each layer's outputs.
        final_hidden: Each layer's last hidden state, directions side by side, (B, layers, M).
        final_cell: The same of the cell; of width 0 for GRU.
        source_ids: With copying: the tokens that may be copied, (B, S).
    """

    final_hidden: torch.FloatTensor | None = None
    final_cell: torch.FloatTensor | None = None
    source_ids: torch.LongTensor | None = None


class RnnSeq2SeqPreTrainedModel(QuantizablePreTrainedModel):
    """Initialisation, saving and loading."""

    config: RnnSeq2SeqConfig
    config_class = RnnSeq2SeqConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["RnnSeq2SeqRecurrentLayer", "Attention", "RnnSeq2SeqBridge"]
    _skip_keys_device_placement = ["past_key_values"]

    def post_init(self) -> None:
        if self.config.quantization == "int8":
            quantize_modules(self)
        super().post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if not isinstance(module, (nn.LSTM, nn.GRU)):
            return
        bound = module.hidden_size**-0.5
        for name, parameter in module.named_parameters():
            if name.startswith("weight"):
                initialization.uniform_(parameter, -bound, bound)
            else:
                # zeros, but ones for an LSTM's forget gate (Jozefowicz et al. 2015)
                gate = torch.arange(len(parameter), device=parameter.device) // module.hidden_size
                ones = (gate == 1) & isinstance(module, nn.LSTM) & name.startswith("bias_ih")
                initialization.copy_(parameter, ones.to(parameter.dtype))


class RnnSeq2SeqEncoder(RnnSeq2SeqPreTrainedModel):
    """Reads the source token by token, in one or both directions."""

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        width = config.embedding_size
        self.embed_tokens = nn.Embedding(config.vocab_size, width, config.pad_token_id)
        depth, directions = config.encoder_layers, config.encoder_directions
        self.stack = RnnSeq2SeqRecurrentStack(
            config, width, config.encoder_hidden_size, depth, directions
        )
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: object,
    ) -> RnnSeq2SeqEncoderOutput:
        """Encode a batch with padding anywhere.

        Args:
            input_ids: Source tokens, (B, S).
            attention_mask: 1 where a token is real, (B, S). None: everywhere.
            inputs_embeds: Embeddings instead of tokens, (B, S, embedding_size).
            output_hidden_states: Whether to return each layer's outputs.

        Raises:
            ValueError: Neither or both inputs, or an item without a real token.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("The encoder takes either input_ids or inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = embed(self.embed_tokens, input_ids, self.config, self.training)
        if inputs_embeds.shape[1] == 0:
            raise ValueError("The source is empty: give at least one token.")
        states = self.stack.zero_state(inputs_embeds)
        if attention_mask is None:
            layers, after = self.stack(inputs_embeds, states)
        else:
            layers, after = self._read_padded(inputs_embeds, attention_mask.bool(), states)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return RnnSeq2SeqEncoderOutput(
            last_hidden_state=layers[-1],
            hidden_states=(inputs_embeds, *layers) if output_hidden_states else None,
            final_hidden=torch.stack([hidden.flatten(1) for hidden, _ in after], dim=1),
            final_cell=torch.stack([cell.flatten(1) for _, cell in after], dim=1),
            source_ids=input_ids if self.config.copy else None,
        )

    def _read_padded(
        self, inputs: Tensor, mask: Tensor, states: States
    ) -> tuple[list[Tensor], States]:
        """Read with the real tokens in front; outputs return to their places."""
        if not torch.compiler.is_compiling() and not mask.any(1).all():
            item = int((~mask.any(1)).nonzero()[0])
            raise ValueError(
                f"Item {item} of the batch is empty: its attention_mask is 0 everywhere."
            )
        forward, back = bring_forward(mask)
        layers, after = self.stack(gather_steps(inputs, forward), states, ~mask.gather(1, forward))
        return [gather_steps(layer, back) * mask[..., None] for layer in layers], after


class RnnSeq2SeqBridge(nn.Module):
    """The decoder's first state from the encoder's last: the fixed context vector."""

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__()
        self.kind = config.bridge
        self.shape = (config.decoder_layers, config.hidden_size)
        self.is_lstm = config.cell_type == "lstm"
        if config.bridge == "linear":
            sizes = (
                config.encoder_layers * config.memory_size,
                config.decoder_layers * config.hidden_size,
            )
            self.hidden = Linear(*sizes)
            self.cell = Linear(*sizes) if self.is_lstm else None

    def forward(self, hidden: Tensor, cell: Tensor) -> States:
        """Map final states (B, encoder_layers, M) to a state for each decoder layer."""
        if self.kind == "zero":
            hidden = hidden.new_zeros(hidden.shape[0], *self.shape)
            cell = hidden if self.is_lstm else hidden[..., :0]
        elif self.kind == "linear":
            cell = (
                self._map(self.cell, cell)
                if self.is_lstm
                else cell.new_zeros(cell.shape[0], self.shape[0], 0)
            )
            hidden = self._map(self.hidden, hidden)
        return [(hidden[:, [layer]], cell[:, [layer]]) for layer in range(self.shape[0])]

    def _map(self, linear: nn.Linear, state: Tensor) -> Tensor:
        return torch.tanh(linear(state.flatten(1))).unflatten(1, self.shape)


@dataclass
class RnnSeq2SeqDecoderOutput(LightOutput, BaseModelOutputWithPastAndCrossAttentions):
    """transformers' output, and with copying, where the decoder points."""

    pointing: Pointing | None = None


@dataclass
class DecoderReading:
    """What reading target tokens gave.

    Args:
        outputs: Vectors for the output layer, (B, T, H).
        layers: Outputs of each recurrent layer, (B, T, H).
        weights: Attention, (B, T, S).
        gates: Logit of the copy gate, (B, T, 1).
        states: The states after each token read by steps, or only those after the last: one for
            each recurrent layer, and under input feeding the last attentional vector.
    """

    outputs: Tensor
    layers: list[Tensor]
    weights: Tensor | None
    gates: Tensor | None
    states: list[States]

    @classmethod
    def joined(cls, steps: list["DecoderReading"]) -> "DecoderReading":
        if len(steps) == 1:
            return steps[0]

        def join(parts: tuple[Tensor | None, ...]) -> Tensor | None:
            return None if parts[0] is None else torch.cat(parts, dim=1)

        return cls(
            outputs=torch.cat([step.outputs for step in steps], dim=1),
            layers=[join(parts) for parts in zip(*(step.layers for step in steps), strict=True)],
            weights=join(tuple(step.weights for step in steps)),
            gates=join(tuple(step.gates for step in steps)),
            states=[step.states[0] for step in steps],
        )


class RnnSeq2SeqDecoder(RnnSeq2SeqPreTrainedModel):
    """Reads target embeddings and looks at the source.

    A subclass says how attention meets the recurrence: `read_step` for one token, and
    `read_sequence` where all of them can run in one recurrent call.
    """

    def __init__(self, config: RnnSeq2SeqConfig, joining: int, combined: int):
        """`joining` is the width beside the embedding in the first layer's input; `combined`, that
        of what an attentional vector is made of."""
        super().__init__(config)
        width = config.embedding_size
        self.embed_tokens = None
        if not config.share_embeddings:
            self.embed_tokens = nn.Embedding(config.decoder_vocab_size, width, config.pad_token_id)
        self.bridge = RnnSeq2SeqBridge(config)
        self.stack = RnnSeq2SeqRecurrentStack(
            config, width + joining, config.hidden_size, config.decoder_layers
        )
        self.attention = None
        if config.attention != "none":
            self.attention = Attention(config)
            self.combine = Linear(combined, config.hidden_size, bias=False)
        if config.copy:
            self.copy_gate = nn.Linear(config.hidden_size + config.memory_size + width, 1)
        self.post_init()

    def read_step(
        self, embedding: Tensor, states: States, position: int, memory: Memory, weights: Weights
    ) -> DecoderReading:
        """Read one token's embedding, (B, embedding_size), with `position` tokens before it."""
        raise NotImplementedError

    def read_sequence(
        self, embeddings: Tensor, states: States, position: int, memory: Memory
    ) -> DecoderReading:
        """Read a whole target, (B, T, embedding_size), token by token."""
        weights = self.stack.weights()
        steps = []
        for place, embedding in enumerate(embeddings.unbind(1)):
            steps.append(self.read_step(embedding, states, position + place, memory, weights))
            states = steps[-1].states[-1]
        return DecoderReading.joined(steps)

    @can_return_tuple
    def forward(
        self,
        inputs_embeds: Tensor,
        encoder_outputs: RnnSeq2SeqEncoderOutput,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Past = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: object,
    ) -> RnnSeq2SeqDecoderOutput:
        """Decode.

        Args:
            inputs_embeds: Embeddings of the target tokens not read yet, (B, T, embedding_size).
            encoder_outputs: What the encoder returned.
            encoder_attention_mask: 1 where a source token is real, (B, S). None: everywhere.
            past_key_values: The state to go on from; it is advanced.
            use_cache: Whether to return the state.
            output_attentions: Whether to return attention, a tuple with one (B, 1, T, S).
            output_hidden_states: Whether to return the outputs of each layer.
        """
        if past_key_values is None and use_cache:
            past_key_values = self.new_cache()
        memory = self._memory(
            encoder_outputs.last_hidden_state, encoder_attention_mask, past_key_values
        )
        states, position = self._first_states(encoder_outputs, past_key_values)
        recording = past_key_values is not None and past_key_values.is_recording
        # one token needs no sequence kernel; recording needs the cell after each token; in int8 a
        # last bit decides on roundings, and attention on several states at once has other last bits
        in_int8 = self.config.quantization == "int8"
        by_steps = inputs_embeds.shape[1] == 1 or recording or in_int8
        read = partial(RnnSeq2SeqDecoder.read_sequence, self) if by_steps else self.read_sequence
        reading = read(inputs_embeds, states, position, memory)
        if past_key_values is not None:
            past_key_values.store(reading.states, inputs_embeds.shape[1])
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        source_ids = encoder_outputs.source_ids
        # without tokens, as where the source came as embeddings, there is nothing to point at
        pointing = None
        if reading.gates is not None and source_ids is not None:
            pointing = Pointing(reading.gates, reading.weights, source_ids)
        # transformers joins these tuples over steps, and cannot join None
        weights = () if reading.weights is None else (reading.weights[:, None],)
        return RnnSeq2SeqDecoderOutput(
            last_hidden_state=F.dropout(reading.outputs, self.config.dropout, self.training),
            past_key_values=past_key_values,
            hidden_states=(inputs_embeds, *reading.layers) if output_hidden_states else None,
            attentions=() if output_attentions else None,
            cross_attentions=weights if output_attentions else None,
            pointing=pointing,
        )

    def new_cache(self) -> RnnSeq2SeqCache:
        """An empty state."""
        return RnnSeq2SeqCache(self.config.decoder_layers + self.config.input_feeding)

    def _memory(self, values: Tensor, mask: Tensor | None, cache: Past) -> Memory:
        if self.attention is None:
            return None
        if mask is None:
            mask = values.new_ones(values.shape[:2])
        keys = None if cache is None else cache.attention_keys
        memory = self.attention.remember(values, mask.bool(), keys)
        if cache is not None:
            cache.attention_keys = memory.keys
        return memory

    def _first_states(self, encoded: RnnSeq2SeqEncoderOutput, cache: Past) -> tuple[States, int]:
        """The states to read on from, and the number of tokens read before."""
        if cache is not None and cache.has_state:
            return cache.last_states(), cache.get_seq_length()
        states = self.bridge(encoded.final_hidden, encoded.final_cell)
        if self.config.input_feeding:
            fed = torch.zeros_like(states[0][0])
            states.append((fed, fed[..., :0]))
        if cache is not None:
            cache.start(states)
        return states, 0

    def _look(self, query: Tensor, memory: Memory, position: int) -> tuple[Tensor, Tensor]:
        """Context and attention for states (B, T, H) that follow `position` tokens."""
        steps = position + torch.arange(query.shape[1], device=query.device)
        return self.attention(query, memory, steps)

    def _gate(self, *known: Tensor) -> Tensor | None:
        """Logit of the copy gate from state, context and embedding."""
        return self.copy_gate(torch.cat(known, dim=-1)) if self.config.copy else None


class RnnSeq2SeqLuongDecoder(RnnSeq2SeqDecoder):
    """The state after the step looks at the source: tanh(W_c [c_t; h_t]) (Luong 2015, eq. 5).

    Without input feeding no step waits for the attention of the one before, so that the whole
    target runs in one recurrent call. Without attention the output is the state itself.
    """

    def __init__(self, config: RnnSeq2SeqConfig):
        fed = config.hidden_size if config.input_feeding else 0
        super().__init__(config, joining=fed, combined=config.memory_size + config.hidden_size)

    def read_sequence(
        self, embeddings: Tensor, states: States, position: int, memory: Memory
    ) -> DecoderReading:
        if self.config.input_feeding:
            return super().read_sequence(embeddings, states, position, memory)
        layers, after = self.stack(embeddings, states)
        return self._attend(layers, after, embeddings, position, memory)

    def read_step(
        self, embedding: Tensor, states: States, position: int, memory: Memory, weights: Weights
    ) -> DecoderReading:
        inputs = embedding
        if self.config.input_feeding:
            *states, (fed, _) = states
            inputs = torch.cat([embedding, fed[:, 0]], dim=-1)
        layers, after = self.stack.step(inputs, states, weights)
        layers = [layer[:, None] for layer in layers]
        reading = self._attend(layers, after, embedding[:, None], position, memory)
        if self.config.input_feeding:
            reading.states[0].append((reading.outputs, reading.outputs[..., :0]))
        return reading

    def _attend(
        self, layers: list[Tensor], after: States, embeddings: Tensor, position: int, memory: Memory
    ) -> DecoderReading:
        hidden = layers[-1]
        if memory is None:
            return DecoderReading(hidden, layers, None, None, [after])
        context, weights = self._look(hidden, memory, position)
        outputs = torch.tanh(self.combine(torch.cat([context, hidden], dim=-1)))
        gates = self._gate(hidden, context, embeddings)
        return DecoderReading(outputs, layers, weights, gates, [after])


class RnnSeq2SeqBahdanauDecoder(RnnSeq2SeqDecoder):
    """The state before the step looks at the source, and the context joins the step's input.

    s_t = f(s_{t-1}, [y_{t-1}; c_t]) and the output is g(s_t, c_t, y_{t-1}) (Bahdanau et al. 2015,
    eq. 4), g being one tanh layer.
    """

    def __init__(self, config: RnnSeq2SeqConfig):
        known = config.hidden_size + config.memory_size + config.embedding_size
        super().__init__(config, joining=config.memory_size, combined=known)

    def read_step(
        self, embedding: Tensor, states: States, position: int, memory: Memory, weights: Weights
    ) -> DecoderReading:
        context, attention = self._look(states[-1][0], memory, position)
        inputs = torch.cat([embedding, context[:, 0]], dim=-1)
        layers, after = self.stack.step(inputs, states, weights)
        layers = [layer[:, None] for layer in layers]
        known = layers[-1], context, embedding[:, None]
        outputs = torch.tanh(self.combine(torch.cat(known, dim=-1)))
        return DecoderReading(outputs, layers, attention, self._gate(*known), [after])


@dataclass
class RnnSeq2SeqModelOutput(LightOutput, Seq2SeqModelOutput):
    """transformers' output, and with copying, where the decoder points."""

    pointing: Pointing | None = None


class RnnSeq2SeqModel(RnnSeq2SeqPreTrainedModel):
    """Encoder, bridge and decoder, without an output layer.

    Example:
        >>> import torch
        >>> from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqModel
        >>> model = RnnSeq2SeqModel(RnnSeq2SeqConfig(vocab_size=50))
        >>> output = model(torch.tensor([[7, 8, 9]]), decoder_input_ids=torch.tensor([[2, 10]]))
        >>> output.last_hidden_state.shape
        torch.Size([1, 2, 512])
    """

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        self.encoder = RnnSeq2SeqEncoder(config)
        additive = config.attention == "additive"
        self.decoder = (RnnSeq2SeqBahdanauDecoder if additive else RnnSeq2SeqLuongDecoder)(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.encoder.embed_tokens = value

    def get_decoder_input_embeddings(self) -> nn.Embedding:
        """The target's embeddings: the source's where they are shared."""
        own = self.decoder.embed_tokens
        return self.encoder.embed_tokens if own is None else own

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: RnnSeq2SeqEncoderOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Past = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        decoder_attention_mask: Tensor | None = None,
        **kwargs: object,
    ) -> RnnSeq2SeqModelOutput:
        """Encode the source (unless `encoder_outputs` are given) and read the target.

        Args:
            input_ids: Source tokens, (B, S).
            attention_mask: 1 where a source token is real, (B, S). Padding may stand anywhere.
            decoder_input_ids: Target tokens not read yet, beginning with `<go>`, (B, T).
            encoder_outputs: What the encoder returned, as a whole.
            past_key_values: The decoder's state to go on from; it is advanced.
            inputs_embeds: Embeddings instead of `input_ids`, (B, S, embedding_size).
            decoder_inputs_embeds: Embeddings instead of `decoder_input_ids`.
            use_cache: Whether to return the decoder's state.
            decoder_attention_mask: 1 where a target token is real. Padding changes nothing, since
                it may only follow the target.
            kwargs: `output_attentions`, to return `cross_attentions`, one (B, 1, T, S);
                `output_hidden_states`, to return the outputs of each layer on both sides.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids, attention_mask, inputs_embeds, **kwargs, return_dict=True
            )
        encoder_outputs = _whole_encoder_output(encoder_outputs)
        if (decoder_input_ids is None) == (decoder_inputs_embeds is None):
            raise ValueError("The decoder takes either decoder_input_ids or decoder_inputs_embeds.")
        if decoder_attention_mask is not None and (decoder_attention_mask.diff(dim=1) > 0).any():
            raise ValueError(
                "decoder_attention_mask with padding before a token is not possible; allowed: "
                "padding at the end."
            )
        if decoder_inputs_embeds is None:
            table = self.get_decoder_input_embeddings()
            decoder_inputs_embeds = embed(table, decoder_input_ids, self.config, self.training)
        decoded = self.decoder(
            decoder_inputs_embeds,
            encoder_outputs,
            attention_mask,
            past_key_values,
            self.config.use_cache if use_cache is None else use_cache,
            **kwargs,
            return_dict=True,
        )
        return RnnSeq2SeqModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            pointing=decoded.pointing,
        )

    def encode_dialogues(
        self, input_ids: Tensor, reply_positions: Tensor
    ) -> tuple[Tensor, States, Tensor]:
        """Encode whole dialogues once, (B, S), for the replies in them, (B, R): `read_turns`.

        Returns:
            Encoder outputs (B, S, M), the decoder's first states of the N replies, and which
            source tokens each may see, (N, S).
        """
        if self.config.bidirectional:
            raise ValueError(
                "reply_positions with bidirectional=True is not possible: a state would know what "
                "is said later; allowed: separate pairs."
            )
        embeddings = embed(self.encoder.embed_tokens, input_ids, self.config, self.training)
        memory, hidden, cell, seen = read_turns(self.encoder.stack, embeddings, reply_positions)
        encoded = RnnSeq2SeqEncoderOutput(memory, final_hidden=hidden, final_cell=cell)
        return memory, self.decoder._first_states(encoded, None)[0], seen


def _whole_encoder_output(
    given: RnnSeq2SeqEncoderOutput | tuple[Tensor, ...],
) -> RnnSeq2SeqEncoderOutput:
    """Encoder outputs as the decoder needs them: the final states belong to them."""
    if isinstance(given, RnnSeq2SeqEncoderOutput):
        return given
    # a tuple may hold each layer's outputs too, as a tuple
    tensors = [part for part in given if isinstance(part, Tensor)] if type(given) is tuple else []
    if len(tensors) in (3, 4):
        names = ("last_hidden_state", "final_hidden", "final_cell", "source_ids")
        return RnnSeq2SeqEncoderOutput(**dict(zip(names, tensors, strict=False)))
    raise ValueError(
        f"encoder_outputs of type {type(given).__name__} lack the encoder's final states; allowed: "
        "what the model's encoder returns, or (last_hidden_state, final_hidden, final_cell)."
    )


@dataclass
class RnnSeq2SeqLMOutput(LightOutput, Seq2SeqLMOutput):
    """transformers' output."""


# Replies of whole dialogues that are decoded together: more would mean more padding.
_TOGETHER = 32
# of the base model's output, by the one with an output layer
_NOT_RETURNED = ("last_hidden_state", "pointing")


class RnnSeq2SeqForConditionalGeneration(RnnSeq2SeqPreTrainedModel, RnnSeq2SeqGenerationMixin):
    """The model with an output layer over the target vocabulary, and `generate()`.

    Example:
        >>> import torch
        >>> from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
        >>> model = RnnSeq2SeqForConditionalGeneration(RnnSeq2SeqConfig(vocab_size=50))
        >>> source, labels = torch.tensor([[7, 8, 9]]), torch.tensor([[10, 11, 3]])
        >>> model(source, labels=labels).loss.backward()
        >>> model.eval().generate(source, num_beams=2, max_new_tokens=4)[0, 0]  # <go>
        tensor(2)
    """

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        self.model = RnnSeq2SeqModel(config)
        self.lm_head: nn.Linear = Linear(config.hidden_size, config.decoder_vocab_size)
        self.post_init()

    def post_init(self) -> None:
        owner = "encoder" if self.config.share_embeddings else "decoder"
        parts = ("weight", "scale") if self.config.quantization == "int8" else ("weight",)
        self._tied_weights_keys = {
            f"lm_head.{part}": f"model.{owner}.embed_tokens.{part}" for part in parts
        }
        if self.config.tie_word_embeddings:  # else the Trainer would miss them in its checkpoints
            self._keys_to_ignore_on_save = list(self._tied_weights_keys)
        super().post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.lm_head = new_embeddings

    def resize_token_embeddings(self, *args: object, **kwargs: object) -> nn.Embedding:
        """Resize the vocabulary; of two vocabularies, the source's."""
        is_one = self.config.decoder_vocab_size == self.config.vocab_size
        if self.config.share_embeddings:
            embeddings = super().resize_token_embeddings(*args, **kwargs)
            self.config.decoder_vocab_size = self.config.vocab_size
            return embeddings
        # super() would resize the target's output layer
        embeddings = self.model.resize_token_embeddings(*args, **kwargs)
        self.vocab_size = self.config.vocab_size
        if is_one:
            self.resize_decoder_token_embeddings(self.config.vocab_size)
        return embeddings

    def resize_decoder_token_embeddings(self, new_num_tokens: int) -> nn.Embedding:
        """Resize the target's vocabulary, where it is one of its own (as in Marian)."""
        if self.config.share_embeddings:
            raise ValueError(
                "share_embeddings=True has one vocabulary; allowed: resize_token_embeddings."
            )
        decoder = self.model.decoder
        decoder.embed_tokens = self._get_resized_embeddings(decoder.embed_tokens, new_num_tokens)
        self.lm_head = self._get_resized_lm_head(self.lm_head, new_num_tokens)
        self.config.decoder_vocab_size = new_num_tokens
        self.tie_weights()
        return decoder.embed_tokens

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        config = self.config
        return shift_tokens_right(labels, config.pad_token_id, config.decoder_start_token_id)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: RnnSeq2SeqEncoderOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Past = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        reply_positions: Tensor | None = None,
        **kwargs: object,
    ) -> RnnSeq2SeqLMOutput:
        """Logits of the next target token at each position, and the loss.

        Args:
            labels: Target tokens, -100 where they do not count, (B, T). Where the decoder has no
                other input it reads them shifted right, with `<go>` in front (teacher forcing).
            logits_to_keep: How many of the last positions to return logits for; 0: all.
            reply_positions: The sources are whole dialogues, each read once: the last position that
                each reply may see, rising, (B, R), -1 where there are fewer. Labels are (B, R, T),
                and nothing but the loss is returned.
            kwargs: Those of `RnnSeq2SeqModel`, whose other arguments these are too, and
                `num_items_in_batch`, which the Trainer passes on to the loss.

        Returns:
            Logits (B, T, target vocabulary), with copying log-probabilities; None in training on
            labels, which needs those of the labels alone, and none on padding.
        """
        if reply_positions is not None:
            return RnnSeq2SeqLMOutput(
                loss=self._dialogues_loss(input_ids, reply_positions, labels, **kwargs)
            )
        if labels is not None:
            use_cache = False if past_key_values is None else use_cache
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        outputs = self.model(
            input_ids,
            attention_mask,
            decoder_input_ids,
            encoder_outputs,
            past_key_values,
            inputs_embeds,
            decoder_inputs_embeds,
            use_cache,
            **kwargs,
            return_dict=True,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        hidden, pointing = outputs.last_hidden_state[:, kept], outputs.pointing
        logits, loss = None, None
        if pointing is not None:
            gate, attention, source_ids = pointing
            pointing = Pointing(gate[:, kept], attention[:, kept], source_ids)
        if self.training and labels is not None:
            loss = label_loss(self.lm_head, hidden, pointing, labels, **kwargs)
        else:
            logits = self.lm_head(hidden)
            logits = logits if pointing is None else mixed_log_probabilities(logits, pointing)
        if labels is not None and loss is None:
            # labels are not shifted against the logits here: `shift_labels` are taken as they are
            size = self.config.decoder_vocab_size
            loss = self.loss_function(
                logits, labels=None, vocab_size=size, shift_labels=labels.contiguous(), **kwargs
            )
        rest = {name: value for name, value in outputs.items() if name not in _NOT_RETURNED}
        return RnnSeq2SeqLMOutput(loss=loss, logits=logits, **rest)

    def _dialogues_loss(
        self,
        input_ids: Tensor,
        reply_positions: Tensor,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: object,
    ) -> Tensor:
        """The loss of all replies in whole dialogues, those of like length read together.

        Where no step waits for attention, a dialogue's labels look at it at once, without copies.
        """
        config, model, decoder = self.config, self.model, self.model.decoder
        place, labels = (reply_positions >= 0).nonzero()[:, 0], labels[reply_positions >= 0]
        values, states, seen = model.encode_dialogues(input_ids, reply_positions)
        keys = values if decoder.attention is None else decoder.attention.score.project(values)
        waits = config.input_feeding or config.attention == "additive"
        waits = waits or config.attention_window != "global"
        parts, flat, memory = [], [], None
        lengths, order = (labels != -100).sum(1).sort()
        for replies, length in zip(order.split(_TOGETHER), lengths.split(_TOGETHER), strict=True):
            target, source = labels[replies, : round_up(int(length[-1]), 8)], place[replies]
            start = self.prepare_decoder_input_ids_from_labels(target)
            inputs = embed(model.get_decoder_input_embeddings(), start, config, self.training)
            if waits:
                memory = AttentionMemory(values[source], keys[source], seen[replies])
            first = [(hidden[replies], cell[replies]) for hidden, cell in states]
            reading = decoder.read_sequence(inputs, first, 0, memory)
            parts.append((reading, input_ids[source], target))
            at = (target != -100).nonzero(as_tuple=True)
            flat.append((reading.outputs[at], inputs[at], target[at], replies[at[0]]))
        if not waits and decoder.attention is not None:
            hidden, inputs, target, reply = map(torch.cat, zip(*flat, strict=True))
            # the labels of each dialogue, (B, Q), -1 where there are fewer
            counts = place[reply].bincount(minlength=len(values)).tolist()
            index = pad_sequence(place[reply].argsort(stable=True).split(counts), True, -1)
            index = F.pad(index, (0, -index.shape[1] % 32), value=-1)
            memory = AttentionMemory(values, keys, seen[reply[index]])
            reading = decoder._attend([hidden[index]], [], inputs[index], 0, memory)
            parts = [(reading, input_ids, target[index].masked_fill(index < 0, -100))]
        losses = []
        for reading, sources, target in parts:
            pointing = Pointing(reading.gates, reading.weights, sources) if config.copy else None
            outputs = F.dropout(reading.outputs, config.dropout, self.training)
            losses.append(label_loss(self.lm_head, outputs, pointing, target, 1))
        items = lengths.sum() if num_items_in_batch is None else num_items_in_batch
        return torch.stack(losses).sum() / items
