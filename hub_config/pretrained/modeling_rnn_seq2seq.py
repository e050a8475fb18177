"""Recurrent encoder-decoder with attention (Sutskever 2014, Cho 2014, Bahdanau 2015, Luong 2015).

B is the batch, S source positions, T target positions, H the decoder's width, M the width of an
encoder output. State travels in arguments, outputs and the cache, never on modules.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel, initialization
from transformers.generation import GenerationConfig, GenerationMode
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
)
from transformers.utils.generic import can_return_tuple

from .attention_rnn_seq2seq import Attention, AttentionMemory
from .cache_rnn_seq2seq import RnnSeq2SeqCache
from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .recurrent_rnn_seq2seq import RnnSeq2SeqRecurrentStack, State

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
    length = mask.shape[1]
    order = torch.arange(length, device=mask.device)
    # topk on distinct keys, since a stable argsort cannot be exported to ONNX
    forward = (mask * length * 2 - order).topk(length, dim=1).indices
    return forward, (mask.long().cumsum(1) - 1).clamp(min=0)


def gather_steps(sequence: Tensor, indices: Tensor) -> Tensor:
    """`sequence` (B, S, width) with its positions rearranged by `indices` (B, S)."""
    return sequence.gather(1, indices[..., None].expand(-1, -1, sequence.shape[-1]))


@dataclass
class RnnSeq2SeqEncoderOutput(BaseModelOutput):
    """What the encoder leaves behind.

    Args:
        last_hidden_state: Encoder outputs, 0 on padding, (B, S, M).
        hidden_states: With `output_hidden_states`: embeddings and each layer's outputs.
        final_hidden: Each layer's last hidden state, directions side by side, (B, layers, M).
        final_cell: The same of the cell; of width 0 for GRU.
    """

    final_hidden: torch.FloatTensor | None = None
    final_cell: torch.FloatTensor | None = None


class RnnSeq2SeqPreTrainedModel(PreTrainedModel):
    """Initialisation, saving and loading."""

    config: RnnSeq2SeqConfig
    config_class = RnnSeq2SeqConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["RnnSeq2SeqRecurrentLayer", "Attention", "RnnSeq2SeqBridge"]
    _skip_keys_device_placement = ["past_key_values"]

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
        states = self.stack.zero_state(inputs_embeds.shape[0])
        if attention_mask is None:
            layers, after = self.stack(inputs_embeds, states)
            layers = [inputs_embeds, *layers]
        else:
            layers, after = self._read_padded(inputs_embeds, attention_mask.bool(), states)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return RnnSeq2SeqEncoderOutput(
            last_hidden_state=layers[-1],
            hidden_states=tuple(layers) if output_hidden_states else None,
            final_hidden=torch.stack([hidden.flatten(1) for hidden, _ in after], dim=1),
            final_cell=torch.stack([cell.flatten(1) for _, cell in after], dim=1),
        )

    def _read_padded(
        self, inputs: Tensor, mask: Tensor, states: list[State]
    ) -> tuple[list[Tensor], list[State]]:
        """Read with the real tokens in front; outputs return to their places."""
        if not torch.compiler.is_compiling() and not mask.any(1).all():
            item = int((~mask.any(1)).nonzero()[0])
            raise ValueError(
                f"Item {item} of the batch is empty: its attention_mask is 0 everywhere."
            )
        forward, back = bring_forward(mask)
        layers, after = self.stack(gather_steps(inputs, forward), states, ~mask.gather(1, forward))
        placed = [gather_steps(layer, back) * mask[..., None] for layer in layers]
        return [inputs, *placed], after


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
            self.hidden = nn.Linear(*sizes)
            self.cell = nn.Linear(*sizes) if self.is_lstm else None

    def forward(self, hidden: Tensor, cell: Tensor) -> list[State]:
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
class DecoderState:
    """Where the decoder stands.

    Args:
        layers: (hidden, cell) of each recurrent layer, (B, 1, H) each.
        fed: The last attentional vector under input feeding, (B, H).
        position: Target tokens read so far.
    """

    layers: list[State]
    fed: Tensor | None
    position: int


@dataclass
class DecoderReading:
    """What reading target tokens gave.

    Args:
        outputs: Vectors for the output layer, (B, T, H).
        layers: Outputs of each recurrent layer, (B, T, H).
        weights: Attention, (B, T, S).
        states: The state after each token read by steps, or only the one after the last.
    """

    outputs: Tensor
    layers: list[Tensor]
    weights: Tensor | None
    states: list[DecoderState]

    @classmethod
    def joined(cls, steps: list["DecoderReading"]) -> "DecoderReading":
        weights = [step.weights for step in steps if step.weights is not None]
        return cls(
            outputs=torch.cat([step.outputs for step in steps], dim=1),
            layers=[
                torch.cat(layer, dim=1)
                for layer in zip(*(step.layers for step in steps), strict=True)
            ],
            weights=torch.cat(weights, dim=1) if weights else None,
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
            self.combine = nn.Linear(combined, config.hidden_size, bias=False)
        self.post_init()

    def read_step(
        self, embedding: Tensor, state: DecoderState, memory: Memory, weights: Weights
    ) -> DecoderReading:
        """Read one token's embedding, (B, embedding_size)."""
        raise NotImplementedError

    def read_sequence(
        self, embeddings: Tensor, state: DecoderState, memory: Memory
    ) -> DecoderReading:
        """Read a whole target, (B, T, embedding_size), token by token."""
        weights = self.stack.weights()
        steps = []
        for embedding in embeddings.unbind(1):
            steps.append(self.read_step(embedding, state, memory, weights))
            state = steps[-1].states[-1]
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
    ) -> BaseModelOutputWithPastAndCrossAttentions:
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
        state = self._first_state(encoder_outputs, past_key_values)
        reading = self._read(inputs_embeds, state, memory, past_key_values)
        if past_key_values is not None:
            self._store(reading, inputs_embeds.shape[1], past_key_values)
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        # transformers joins these tuples over steps, and cannot join None
        weights = () if reading.weights is None else (reading.weights[:, None],)
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=F.dropout(reading.outputs, self.config.dropout, self.training),
            past_key_values=past_key_values,
            hidden_states=(inputs_embeds, *reading.layers) if output_hidden_states else None,
            attentions=() if output_attentions else None,
            cross_attentions=weights if output_attentions else None,
        )

    def new_cache(self) -> RnnSeq2SeqCache:
        """An empty state."""
        return RnnSeq2SeqCache(self.config.decoder_layers + self.config.input_feeding)

    def _read(
        self, embeddings: Tensor, state: DecoderState, memory: Memory, cache: Past
    ) -> DecoderReading:
        # one token needs no sequence kernel; recording needs the cell after each token
        if embeddings.shape[1] == 1 or (cache is not None and cache.is_recording):
            return RnnSeq2SeqDecoder.read_sequence(self, embeddings, state, memory)
        return self.read_sequence(embeddings, state, memory)

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

    def _first_state(self, encoded: RnnSeq2SeqEncoderOutput, cache: Past) -> DecoderState:
        if cache is not None and cache.has_state:
            return self._stored_state(cache)
        layers = self.bridge(encoded.final_hidden, encoded.final_cell)
        fed = torch.zeros_like(layers[0][0][:, 0]) if self.config.input_feeding else None
        if cache is not None:
            for place, (hidden, cell) in enumerate(self._parts(DecoderState(layers, fed, 0))):
                cache.layers[place].lazy_initialization(hidden, cell)
        return DecoderState(layers, fed, 0)

    def _stored_state(self, cache: RnnSeq2SeqCache) -> DecoderState:
        last = [(layer.keys[:, :, -1], layer.values[:, :, -1]) for layer in cache.layers]
        fed = last.pop()[0][:, 0] if self.config.input_feeding else None
        return DecoderState(last, fed, cache.get_seq_length())

    def _parts(self, state: DecoderState) -> list[State]:
        """A state as the cache keeps it: pairs of (B, 1, 1, width)."""
        pairs = [(hidden[:, :, None], cell[:, :, None]) for hidden, cell in state.layers]
        if state.fed is not None:
            fed = state.fed[:, None, None]
            pairs.append((fed, fed[..., :0]))
        return pairs

    def _store(self, reading: DecoderReading, tokens: int, cache: RnnSeq2SeqCache) -> None:
        parts = [self._parts(state) for state in reading.states]
        for place, pairs in enumerate(zip(*parts, strict=True)):
            hidden = torch.cat([pair[0] for pair in pairs], dim=2)
            cell = torch.cat([pair[1] for pair in pairs], dim=2)
            cache.update(hidden, cell, place, tokens=tokens)


class RnnSeq2SeqLuongDecoder(RnnSeq2SeqDecoder):
    """The state after the step looks at the source: tanh(W_c [c_t; h_t]) (Luong 2015, eq. 5).

    Without input feeding no step waits for the attention of the one before, so that the whole
    target runs in one recurrent call. Without attention the output is the state itself.
    """

    def __init__(self, config: RnnSeq2SeqConfig):
        fed = config.hidden_size if config.input_feeding else 0
        super().__init__(config, joining=fed, combined=config.memory_size + config.hidden_size)

    def read_sequence(
        self, embeddings: Tensor, state: DecoderState, memory: Memory
    ) -> DecoderReading:
        if self.config.input_feeding:
            return super().read_sequence(embeddings, state, memory)
        layers, after = self.stack(embeddings, state.layers)
        outputs, weights = self._attend(layers[-1], memory, state.position)
        last = DecoderState(after, None, state.position + embeddings.shape[1])
        return DecoderReading(outputs, layers, weights, [last])

    def read_step(
        self, embedding: Tensor, state: DecoderState, memory: Memory, weights: Weights
    ) -> DecoderReading:
        if state.fed is not None:
            embedding = torch.cat([embedding, state.fed], dim=-1)
        layers, after = self.stack.step(embedding, state.layers, weights)
        layers = [layer[:, None] for layer in layers]
        outputs, attention = self._attend(layers[-1], memory, state.position)
        fed = None if state.fed is None else outputs[:, 0]
        return DecoderReading(
            outputs, layers, attention, [DecoderState(after, fed, state.position + 1)]
        )

    def _attend(
        self, hidden: Tensor, memory: Memory, position: int
    ) -> tuple[Tensor, Tensor | None]:
        if self.attention is None or memory is None:
            return hidden, None
        steps = torch.arange(position, position + hidden.shape[1], device=hidden.device)
        context, weights = self.attention(hidden, memory, steps)
        return torch.tanh(self.combine(torch.cat([context, hidden], dim=-1))), weights


class RnnSeq2SeqBahdanauDecoder(RnnSeq2SeqDecoder):
    """The state before the step looks at the source, and the context joins the step's input.

    s_t = f(s_{t-1}, [y_{t-1}; c_t]) and the output is g(s_t, c_t, y_{t-1}) (Bahdanau et al. 2015,
    eq. 4), g being one tanh layer.
    """

    def __init__(self, config: RnnSeq2SeqConfig):
        known = config.hidden_size + config.memory_size + config.embedding_size
        super().__init__(config, joining=config.memory_size, combined=known)

    def read_step(
        self, embedding: Tensor, state: DecoderState, memory: Memory, weights: Weights
    ) -> DecoderReading:
        asked = torch.full((1,), state.position, device=embedding.device)
        context, attention = self.attention(state.layers[-1][0], memory, asked)
        inputs = torch.cat([embedding, context[:, 0]], dim=-1)
        layers, after = self.stack.step(inputs, state.layers, weights)
        known = torch.cat([layers[-1], context[:, 0], embedding], dim=-1)
        return DecoderReading(
            outputs=torch.tanh(self.combine(known))[:, None],
            layers=[layer[:, None] for layer in layers],
            weights=attention,
            states=[DecoderState(after, None, state.position + 1)],
        )


class RnnSeq2SeqModel(RnnSeq2SeqPreTrainedModel):
    """Encoder, bridge and decoder, without an output layer."""

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
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: object,
    ) -> Seq2SeqModelOutput:
        """Encode the source (unless `encoder_outputs` are given) and read the target.

        Args:
            input_ids: Source tokens, (B, S).
            attention_mask: 1 where a source token is real, (B, S). Padding may stand anywhere.
            decoder_input_ids: Target tokens not read yet, beginning with `<go>`, (B, T).
            encoder_outputs: What the encoder returned, as a whole.
            past_key_values: The decoder's state to go on from.
            inputs_embeds: Embeddings instead of `input_ids`.
            decoder_inputs_embeds: Embeddings instead of `decoder_input_ids`.
            use_cache: Whether to return the decoder's state.
            output_attentions: Whether to return `cross_attentions`, one (B, 1, T, S).
            output_hidden_states: Whether to return the outputs of each layer on both sides.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids, attention_mask, inputs_embeds, output_hidden_states, return_dict=True
            )
        encoder_outputs = _whole_encoder_output(encoder_outputs)
        if (decoder_input_ids is None) == (decoder_inputs_embeds is None):
            raise ValueError("The decoder takes either decoder_input_ids or decoder_inputs_embeds.")
        if decoder_inputs_embeds is None:
            table = self.get_decoder_input_embeddings()
            decoder_inputs_embeds = embed(table, decoder_input_ids, self.config, self.training)
        decoded = self.decoder(
            decoder_inputs_embeds,
            encoder_outputs,
            attention_mask,
            past_key_values,
            use_cache,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
        )


def _whole_encoder_output(
    given: RnnSeq2SeqEncoderOutput | tuple[Tensor, ...],
) -> RnnSeq2SeqEncoderOutput:
    """Encoder outputs as the decoder needs them: the final states belong to them."""
    if isinstance(given, RnnSeq2SeqEncoderOutput):
        return given
    if isinstance(given, tuple) and len(given) in (3, 4):
        return RnnSeq2SeqEncoderOutput(given[0], final_hidden=given[-2], final_cell=given[-1])
    raise ValueError(
        f"encoder_outputs of type {type(given).__name__} lack the encoder's final states; allowed: "
        "what the model's encoder returns, or (last_hidden_state, final_hidden, final_cell)."
    )


class RnnSeq2SeqForConditionalGeneration(RnnSeq2SeqPreTrainedModel, GenerationMixin):
    """The model with an output layer over the target vocabulary, and `generate()`."""

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        self.model = RnnSeq2SeqModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.decoder_vocab_size)
        owner = "encoder" if config.share_embeddings else "decoder"
        self._tied_weights_keys = {"lm_head.weight": f"model.{owner}.embed_tokens.weight"}
        if config.tie_word_embeddings:
            self._keys_to_ignore_on_save = ["lm_head.weight"]
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.lm_head = new_embeddings

    def resize_token_embeddings(self, *args: object, **kwargs: object) -> nn.Embedding:
        """Resize the source's vocabulary, and the target's where they share embeddings."""
        if not self.config.share_embeddings:  # super() would resize the target's output layer
            return self.model.resize_token_embeddings(*args, **kwargs)
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        self.config.decoder_vocab_size = self.config.vocab_size
        return embeddings

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
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: object,
    ) -> Seq2SeqLMOutput:
        """Logits of the next target token at each position, and the loss.

        Args:
            labels: Target tokens, -100 where they do not count, (B, T). Where the decoder has no
                other input it reads them shifted right, with `<go>` in front (teacher forcing).
            logits_to_keep: How many of the last positions to return logits for; 0: all.
            kwargs: `num_items_in_batch`, which the Trainer passes on to the loss.

        The other arguments are those of `RnnSeq2SeqModel`. Logits are (B, T, target vocabulary).
        """
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
            self.config.use_cache if use_cache is None else use_cache,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            # labels are not shifted against the logits here: `shift_labels` are taken as they are
            size = self.config.decoder_vocab_size
            loss = self.loss_function(
                logits, labels=None, vocab_size=size, shift_labels=labels, **kwargs
            )
        rest = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        return Seq2SeqLMOutput(loss=loss, logits=logits, **rest)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Past = None,
        **kwargs: object,
    ) -> dict[str, object]:
        """Leave out what the state has read already: reading it again would advance it twice."""
        read = 0 if past_key_values is None else past_key_values.get_seq_length()
        return super().prepare_inputs_for_generation(
            input_ids[:, read:], past_key_values=past_key_values, **kwargs
        )

    def _prepare_cache_for_generation(
        self,
        generation_config: GenerationConfig,
        model_kwargs: dict,
        generation_mode: GenerationMode,
        batch_size: int,
        max_cache_length: int,
    ) -> None:
        """Start a recurrent state where transformers would start a key-value cache."""
        kind = generation_config.cache_implementation
        if kind not in (None, "dynamic"):
            raise ValueError(
                f"cache_implementation={kind!r} is not possible: a recurrent state has one size. "
                "Allowed: None."
            )
        given = model_kwargs.get("past_key_values")
        if given is not None and not isinstance(given, RnnSeq2SeqCache):
            raise ValueError(
                f"past_key_values of type {type(given).__name__} is not possible; allowed: "
                "the RnnSeq2SeqCache that this model returns."
            )
        if given is None and generation_config.use_cache is not False:
            given = self.model.decoder.new_cache()
            model_kwargs["past_key_values"] = given
            if generation_config.is_assistant:
                given.activate_past_recording()
