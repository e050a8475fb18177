"""Tests of transformers that cannot apply, by kind and with the reason; patterns as of a shell.

`verdict.py` holds this complete: a skip that is not listed fails the run, and so does an entry that
names no test, or one that ran after all. Only tests of hardware may run, where the hardware is.
"""

SKIPS: dict[str, dict[str, str]] = {
    "hardware": {
        "test_can_load_with_device_context_manager": "an accelerator",
        "test_can_load_with_global_device_set": "an accelerator",
        "test_cpu_offload": "an accelerator to offload from",
        "test_disk_offload_*": "an accelerator to offload from",
        "test_kernels_can_load_without_crashing": "an accelerator and the `kernels` library",
        "test_model_parallelism": "several accelerators",
        "test_resize_*_with_deepspeed*": "accelerators under DeepSpeed",
        "test_tied_head_has_a_tp_plan_entry": "a plan of tensors split over several accelerators",
        "test_torch_compile_for_training": "an accelerator",
        "test_tp_plan_matches_params": "a plan of tensors split over several accelerators",
    },
    "vision and audio": {
        "test_get_audio_features_*": "models that join text and sound",
        "test_get_image_features_*": "models that join text and pictures",
        "test_get_text_features_*": "the text side of models that join text and pictures",
        "test_get_video_features_*": "models that join text and films",
    },
    "mixture of experts": {
        "test_eager_matches_batched_and_grouped_inference_*": "kernels of experts",
        "test_moe_models_record_router_logits": "the router of experts",
        "test_output_router_logits_from_config": "the router of experts",
    },
    "rotary positions": {
        "test_model_rope_*": "rotary positions in text",
        "test_vision_axial_rope": "rotary positions in pictures",
    },
    "attention kernels": {
        "test_attn_implementation_composite_models": "a kernel for each part of a composite model",
        "test_can_set_attention_dynamically*": "changing from kernel to kernel",
        "test_eager_matches_sdpa_inference_*": "scaled dot products: none of our scores is one",
        "test_flash_attn_*": "scaled dot products by FlashAttention",
        "test_flex_attention_with_grads": "scaled dot products by FlexAttention",
        "test_sdpa_can_*": "scaled dot products: none of our scores is one",
    },
}
