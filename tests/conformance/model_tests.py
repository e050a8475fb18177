"""transformers' own model tests on our model: `make conformance`.

Where a test asks for what our model has not, such as self-attention, the nearest thing that it has
is tested under the same name, and the docstring says which.
"""

import tempfile
import unittest
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from conformance.distribution import load
from conformance.skips import SKIPS
from conformance.variants import TINY, VARIANTS, Settings
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.models.auto import modeling_auto

from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration, RnnSeq2SeqModel

FIRST_WORD = 4
ModelClass = type[PreTrainedModel]

# as for a model inside transformers: the tests look up there what a class is for
modeling_auto.MODEL_MAPPING_NAMES["rnn_seq2seq"] = "RnnSeq2SeqModel"
modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES["rnn_seq2seq"] = (
    "RnnSeq2SeqForConditionalGeneration"
)
common, configuration = load("test_modeling_common"), load("test_configuration_common")


class RnnSeq2SeqModelTester:
    """A tiny model and its inputs, padded on the right, holed, and left."""

    batch_size = 3
    encoder_seq_length = 8
    seq_length = decoder_seq_length = 7
    is_training = True

    def __init__(self, settings: Settings):
        self.settings = TINY | settings
        self.num_hidden_layers = self.settings["decoder_layers"]

    def get_config(self) -> RnnSeq2SeqConfig:
        return RnnSeq2SeqConfig(**self.settings)

    def prepare_config_and_inputs_for_common(self) -> tuple[RnnSeq2SeqConfig, dict[str, Tensor]]:
        config = self.get_config()
        mask = torch.ones(self.batch_size, self.encoder_seq_length, dtype=torch.long)
        mask[0, -2:] = mask[1, [2, 5]] = mask[2, :3] = 0
        source = torch.randint(FIRST_WORD, config.vocab_size, mask.shape)
        shape = (self.batch_size, self.decoder_seq_length)
        target = torch.randint(FIRST_WORD, config.decoder_vocab_size, shape)
        inputs = {"input_ids": source, "attention_mask": mask, "decoder_input_ids": target}
        return config, {name: value.to(common.torch_device) for name, value in inputs.items()}


class RnnSeq2SeqModelTest(common.ModelTesterMixin):
    """What each variant must pass."""

    settings: Settings
    all_model_classes = (RnnSeq2SeqModel, RnnSeq2SeqForConditionalGeneration)
    is_encoder_decoder = True
    # else left out, for want of a year in our sources
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self) -> None:
        for pattern, reason in SKIPS["vision and audio"].items():
            if fnmatch(self._testMethodName, pattern):  # else they pass without a look at anything
                self.skipTest(reason)
        torch.manual_seed(0)
        self.model_tester = RnnSeq2SeqModelTester(self.settings)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def build(
        self, model_class: ModelClass = RnnSeq2SeqForConditionalGeneration, **changes: Any
    ) -> tuple[PreTrainedModel, dict[str, Tensor]]:
        """A model of the variant for evaluation, some settings changed, and its inputs."""
        tester = RnnSeq2SeqModelTester(self.settings | changes)
        config, inputs = tester.prepare_config_and_inputs_for_common()
        return model_class(config).to(common.torch_device).eval(), inputs

    def test_config(self) -> None:
        names = ["hidden_size", "num_hidden_layers"]
        configuration.ConfigTester(
            self, RnnSeq2SeqConfig, common_properties=names, **self.model_tester.settings
        ).run_common_tests()

    def test_model_forward_default_config_values(self) -> None:
        """With the width that tied embeddings, the default, ask for."""
        self.model_tester.settings["embedding_size"] = self.model_tester.settings["hidden_size"]
        super().test_model_forward_default_config_values()

    def test_inputs_embeds_matches_input_ids(self) -> None:
        """With the decoder's own embeddings, where they are not shared."""
        if self.model_tester.get_config().share_embeddings:
            return super().test_inputs_embeds_matches_input_ids()
        model, inputs = self.build(RnnSeq2SeqModel)
        by_tokens = model(**inputs)[0]
        source = model.get_input_embeddings()(inputs.pop("input_ids"))
        target = model.get_decoder_input_embeddings()(inputs.pop("decoder_input_ids"))
        vectors = {"inputs_embeds": source, "decoder_inputs_embeds": target}
        torch.testing.assert_close(model(**inputs, **vectors)[0], by_tokens)

    def test_resize_embeddings_untied(self) -> None:
        """Of two vocabularies, each by itself."""
        config = self.model_tester.get_config()
        if config.decoder_vocab_size == config.vocab_size:
            return super().test_resize_embeddings_untied()
        model, inputs = self.build()
        model.resize_token_embeddings(config.vocab_size + 10)
        model.resize_decoder_token_embeddings(config.decoder_vocab_size + 5)
        inputs["input_ids"][:, 4] += 10
        inputs["decoder_input_ids"][:, -1] = config.decoder_vocab_size + 4
        assert model(**inputs).logits.shape[-1] == config.decoder_vocab_size + 5

    def test_attention_outputs(self) -> None:
        """Cross-attention in the decoder's one layer of it, for self-attention in every layer."""
        layers = int(self.model_tester.get_config().attention != "none")
        for model_class in self.all_model_classes:
            model, inputs = self.build(model_class)
            plain, asked = model(**inputs), model(**inputs, output_attentions=True)
            model.config.output_attentions = True
            configured = model(**inputs, output_hidden_states=True)
            # further outputs come beside the others: decoder_ and cross_attentions, hidden states
            assert [len(asked), len(configured)] == [len(plain) + 2, len(plain) + 4]
            torch.testing.assert_close(asked[0], plain[0])
            mask = inputs["attention_mask"][:, None, None]
            for outputs in (asked, configured):
                assert outputs.encoder_attentions is None
                assert outputs.decoder_attentions == ()
                assert len(outputs.cross_attentions) == layers
                for weights in outputs.cross_attentions:
                    assert weights.shape == (3, 1, 7, 8)
                    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
                    assert (weights * (1 - mask) == 0).all()

    def test_retain_grad_hidden_states_attentions(self) -> None:
        """Cross-attention may come step by step: gradients flow from it, not always to it."""
        model, inputs = self.build(RnnSeq2SeqModel)
        outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
        source, target = outputs.encoder_hidden_states[0], outputs.decoder_hidden_states[0]
        for start in (outputs[0], *outputs.cross_attentions):
            source.retain_grad()
            target.retain_grad()
            source.grad = target.grad = None
            start[0, ..., -1, :].max().backward(retain_graph=True)
            assert source.grad[0].any()
            assert target.grad[0].any()

    def test_hidden_states_output(self) -> None:
        """Depth and width of encoder and decoder may differ."""
        for model_class in self.all_model_classes:
            model, inputs = self.build(model_class)
            asked, config = model(**inputs, output_hidden_states=True), model.config
            config.output_hidden_states = True
            for outputs in (asked, model(**inputs)):
                encoder = [config.embedding_size] + [config.memory_size] * config.encoder_layers
                decoder = [config.embedding_size] + [config.hidden_size] * config.decoder_layers
                shapes = [states.shape for states in outputs.encoder_hidden_states]
                assert shapes == [(3, 8, width) for width in encoder]
                shapes = [states.shape for states in outputs.decoder_hidden_states]
                assert shapes == [(3, 7, width) for width in decoder]

    def test_capture_outputs_decorator(self) -> None:
        """No outputs are captured by hooks: those of the head must be those of the model in it."""
        model, inputs = self.build()
        options = {"output_hidden_states": True, "output_attentions": True}
        whole, part = model(**inputs, **options), model.model(**inputs, **options)
        for name in ("encoder_hidden_states", "decoder_hidden_states", "cross_attentions"):
            torch.testing.assert_close(whole[name], part[name], rtol=0, atol=0)

    def test_can_capture_specific_layers_hidden_states(self) -> None:
        """A list of layers gets all of them, each in its place."""
        model, inputs = self.build()
        every = model(**inputs, output_hidden_states=True).decoder_hidden_states
        some = model(**inputs, output_hidden_states=[0, -1]).decoder_hidden_states
        torch.testing.assert_close([some[0], some[-1]], [every[0], every[-1]])

    def test_generation_tester_mixin_inheritance(self) -> None:
        """That mixin is not distributed: greedy search must take what the forward pass prefers."""
        model, inputs = self.build(initializer_range=1.0)
        del inputs["decoder_input_ids"]
        tokens = model.generate(**inputs, max_new_tokens=6, eos_token_id=None)
        preferred = model(**inputs, decoder_input_ids=tokens[:, :-1]).logits.argmax(-1)
        assert preferred.tolist() == tokens[:, 1:].tolist()

    def test_keep_in_fp32_modules_exist(self) -> None:
        """No weight asks for it."""
        model, _ = self.build()
        assert not model._keep_in_fp32_modules | model._keep_in_fp32_modules_strict

    def test_keep_in_fp32_modules(self) -> None:
        """All weights take the type that is asked for."""
        for model_class in self.all_model_classes:
            self.build(model_class)[0].save_pretrained(self.folder)
            for dtype in (torch.float16, torch.bfloat16):
                loaded = model_class.from_pretrained(self.folder, dtype=dtype)
                assert {weight.dtype for weight in loaded.state_dict().values()} == {dtype}

    def test_resize_position_vector_embeddings(self) -> None:
        """There are none: a source of any length is read."""
        model, inputs = self.build()
        steps = 4 * model.config.max_source_positions
        source = inputs["input_ids"][:, :1].repeat(1, steps)
        outputs = model(source, decoder_input_ids=inputs["decoder_input_ids"])
        assert outputs.encoder_last_hidden_state.shape[1] == steps
        assert outputs.logits.isfinite().all()

    def test_reverse_loading_mapping(self) -> None:
        """No weight is renamed: a file holds the model's own, but for tied ones."""
        for model_class in self.all_model_classes:
            model, _ = self.build(model_class)
            model.save_pretrained(self.folder)
            saved = load_file(self.folder / "model.safetensors").keys()
            assert saved == model.state_dict().keys() - model.all_tied_weights_keys.keys()

    def test_can_load_from_already_mapped_keys(self) -> None:
        """No weight is renamed: either format gives the model back."""
        for model_class in self.all_model_classes:
            model, _ = self.build(model_class)
            for original in (True, False):
                model.save_pretrained(self.folder, save_original_format=original)
                loaded = model_class.from_pretrained(self.folder)
                assert common.compare_state_dicts(model.state_dict(), loaded.state_dict())

    def test_causal_lm_loss_honors_shift_labels(self) -> None:
        """Labels are not shifted here; what the Trainer does hand on is `num_items_in_batch`."""
        model, inputs = self.build()
        inputs["labels"] = inputs["decoder_input_ids"]
        items = inputs["labels"].numel()
        loss, half = model(**inputs).loss, model(**inputs, num_items_in_batch=2 * items).loss
        torch.testing.assert_close(half, loss / 2)

    def test_sliding_window_mask(self) -> None:
        """The window is that of cross-attention; without attention it is refused."""
        if self.model_tester.get_config().attention == "none":
            with pytest.raises(ValueError, match="attention_window='recent'"):
                self.build(attention_window="recent")
            return
        for window, size in (("recent", 2), ("global", 8)):
            model, inputs = self.build(attention_window=window, attention_window_size=size)
            mask = inputs["attention_mask"]
            seen = (model(**inputs, output_attentions=True).cross_attentions[0] > 0).long()
            expected = mask * (mask.flip(1).cumsum(1).flip(1) <= size)
            assert (seen == expected[:, None, None]).all()

    def test_internal_model_config_and_subconfig_are_same(self) -> None:
        """There is one config: all parts hold it itself."""
        model, _ = self.build()
        parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
        assert {id(part.config) for part in parts} == {id(model.config)}

    def test_can_load_ignoring_mismatched_shapes(self) -> None:
        """The vocabulary differs in size, for want of a classification head."""
        self.check_mismatch(RnnSeq2SeqForConditionalGeneration, RnnSeq2SeqForConditionalGeneration)

    def test_load_with_mismatched_shapes(self) -> None:
        """The same through the Auto classes."""
        self.check_mismatch(RnnSeq2SeqForConditionalGeneration, AutoModelForSeq2SeqLM)
        self.check_mismatch(RnnSeq2SeqModel, AutoModel)

    def check_mismatch(self, model_class: ModelClass, loader: Any) -> None:
        model, _ = self.build(model_class)
        model.save_pretrained(self.folder)
        sizes = {"vocab_size": 77, "decoder_vocab_size": 77}
        with pytest.raises(RuntimeError):
            loader.from_pretrained(self.folder, **sizes)
        loaded = loader.from_pretrained(self.folder, ignore_mismatched_sizes=True, **sizes)
        for name, weight in loaded.named_parameters():
            old = model.get_parameter(name)
            if weight.shape == old.shape:
                torch.testing.assert_close(weight, old)
            else:
                assert weight.shape == (77, *old.shape[1:])


for name, settings in VARIANTS.items():
    globals()[name] = type(name, (RnnSeq2SeqModelTest, unittest.TestCase), {"settings": settings})
