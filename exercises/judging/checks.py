"""Which of the package's own tests judge which exercise: those that call the function and look at nothing inside it."""

CHECKS: dict[str, tuple[str, str]] = {
    "iou": (
        "tests/test_boxes.py",
        "iou_by_hand iou_counts_squares iou_is_symmetric_and_bounded boxes_without_area "
        "iou_of_batches_is_iou_one_by_one iou_is_torchvision_s",
    ),
    "nms": (
        "tests/test_nms.py",
        "by_hand exactly_the_threshold_is_kept equal_scores_and_equal_boxes groups_by_hand no_boxes is_greedy "
        "batched_is_greedy_group_by_group one_group_is_no_groups what_is_kept_is_kept_again is_torchvision_s",
    ),
    "anchors": (
        "tests/rpn/test_anchors.py",
        "one_place corners_are_whole_pixels halves_round_to_even two_levels anchors_of_one_place_come_together "
        "every_place_has_every_anchor is_the_slow_one reference",
    ),
    "matching": (
        "tests/test_matching.py",
        "match_by_hand thresholds_themselves_count_upwards ties a_low_quality_match_answers_for_its_own_best_object "
        "no_objects match_is_the_slow_one every_object_has_a_candidate match_is_torchvision_s",
    ),
    "boxes": (
        "tests/test_boxes.py",
        "encode_and_decode_by_hand growth_is_bounded decode_undoes_encode deltas_do_not_depend_on_place_or_scale "
        "decode_broadcasts_references library_precision_shape_and_inputs_are_kept "
        "encode_and_decode_are_torchvision_s",
    ),
    "conv2d": (
        "tests/ops/test_conv.py",
        "a_convolution_by_hand stride_and_padding_by_hand channels_by_hand conv2d_is_the_slow_one "
        "backward_is_the_transpose what_moves_in_moves_out images_do_not_meet any_memory_layout_will_do "
        "precision_is_the_input_s no_images gradients_of_conv2d conv2d_is_pytorch_s",
    ),
    "roi_align": (
        "tests/ops/test_roi_align.py",
        "samples_lie_in_the_middle_of_their_bins a_sample_amid_four_pixels more_samples_are_averaged "
        "scale_and_alignment small_boxes_count_as_one_pixel_unless_aligned beyond_the_map each_box_reads_its_own_image "
        "is_the_slow_one backward_is_the_transpose what_moves_with_its_box_looks_the_same boxes_do_not_meet no_boxes "
        "precision_is_the_features gradients is_torchvision_s",
    ),
    "cross_entropy": (
        "tests/ops/test_losses.py",
        "cross_entropy_by_hand backward_multiplies_by_its_argument losses_are_the_slow_ones "
        "only_differences_of_logits_count two_classes_are_one_binary_choice large_logits_do_not_overflow "
        "a_loss_over_nothing_is_0 gradients_of_cross_entropy is_pytorch_s",
    ),
    "average_precision": (
        "tests/test_evaluation.py",
        "the_steps_of_the_worked_example three_detections_and_two_objects_on_paper an_object_is_found_once "
        "a_crowd_excuses_all_that_lies_in_it average_precision_equals_the_slow_loop "
        "detections_equal_to_the_objects_score_one random_scenes_equal_pycocotools empty_images_equal_pycocotools",
    ),
}
"""By exercise, the file and the names of its tests, without ``test_``."""

OTHER_CASES = ("bce", "smooth_l1")
"""Parameters of a chosen test that are about another function."""
