"""What a module moves is counted as the chip sees it: loops as often as they run, slices as slices."""

import pytest

from griffin_eqx.aot.hlo import kernel_name, read_module

MODULE = """\
HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[64,1024]{1,0})->f32[64,1024]{1,0}}

%slice_of (param_0: f32[64,1024], param_1: s32[]) -> f32[1,1024] {
  %param_0 = f32[64,1024]{1,0:T(8,128)} parameter(0)
  %param_1 = s32[]{:T(128)S(6)} parameter(1)
  ROOT %dynamic_slice.1 = f32[1,1024]{1,0:T(8,128)S(1)} dynamic-slice(%param_0, %param_1, %param_1)
}

%body (state: (s32[], f32[64,1024], f32[64,1024])) -> (s32[], f32[64,1024], f32[64,1024]) {
  %state = (s32[]{:T(128)}, f32[64,1024]{1,0:T(8,128)}, /*index=2*/f32[64,1024]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %x = f32[64,1024]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %y = f32[64,1024]{1,0:T(8,128)} get-tuple-element(%state), index=2
  %row = f32[1,1024]{1,0:T(8,128)S(1)} fusion(%x, %i), kind=kLoop, calls=%slice_of, {"estimated_cycles":"100"}
  %new = f32[64,1024]{1,0:T(8,128)} dynamic-update-slice(%y, %row, %i, %i)
  ROOT %next = (s32[]{:T(128)}, f32[64,1024]{1,0:T(8,128)}, f32[64,1024]{1,0:T(8,128)}) tuple(%i, %x, %new)
}

%condition (state.1: (s32[], f32[64,1024], f32[64,1024])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, f32[64,1024]{1,0:T(8,128)}, f32[64,1024]{1,0:T(8,128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  %bound = s32[]{:T(128)} constant(64)
  ROOT %less = pred[]{:T(512)} compare(%i.1, %bound), direction=LT
}

ENTRY %main (x.1: f32[64,1024]) -> f32[64,1024] {
  %x.1 = f32[64,1024]{1,0:T(8,128)} parameter(0), metadata={op_name="x"}
  %zero = s32[]{:T(128)} constant(0)
  %buffer = f32[64,1024]{1,0:T(8,128)} custom-call(), custom_call_target="AllocateBuffer"
  %start = (s32[]{:T(128)}, f32[64,1024]{1,0:T(8,128)}, f32[64,1024]{1,0:T(8,128)}) tuple(%zero, %x.1, %buffer)
  %loop = (s32[]{:T(128)}, f32[64,1024]{1,0}, f32[64,1024]{1,0}) while(%start), condition=%condition, body=%body
  %out = f32[64,1024]{1,0:T(8,128)} get-tuple-element(%loop), index=2
  %copy.1 = f32[64,1024]{0,1:T(8,128)} copy(%out), backend_config={"estimated_cycles":"7"}
  %back = f32[64,1024]{1,0:T(8,128)} bitcast(%copy.1)
  ROOT %scan.12 = f32[64,1024]{1,0:T(8,128)} custom-call(%back), custom_call_target="tpu_custom_call"
}
"""
ARRAY = 64 * 1024 * 4


@pytest.fixture(scope="module")
def module():
    return read_module(MODULE)


def test_a_loop_counts_as_often_as_it_runs_and_a_kernel_as_it_says(module):
    # 64 turns read a row and write one, which is each array once; the copy reads and writes all of it.
    assert module.traffic({"scan": [2 * ARRAY, 3 * ARRAY]}) == ARRAY * (1 + 1 + 2 + 5)


def test_what_lies_on_the_chip_costs_nothing():
    in_memory = MODULE
    for name in ("%row", "%dynamic_slice.1"):
        in_memory = in_memory.replace(
            f"{name} = f32[1,1024]{{1,0:T(8,128)S(1)}}", f"{name} = f32[1,1024]{{1,0}}"
        )
    # The row now goes to memory and comes back, 64 times.
    assert read_module(in_memory).traffic({"scan": [0]}) == ARRAY * (1 + 1 + 2 + 2)


def test_what_a_kernel_finds_on_the_chip_costs_nothing():
    prefetched = MODULE.replace(
        "%back = f32[64,1024]{1,0:T(8,128)}", "%back = f32[64,1024]{1,0:T(8,128)S(1)}"
    )
    assert read_module(prefetched).traffic({"scan": [2 * ARRAY, 3 * ARRAY]}) == ARRAY * (1 + 1 + 2 + 3)
    # Where blocks are not known, all that the kernel declares counts.
    assert read_module(prefetched).traffic({"scan": [5 * ARRAY]}) == ARRAY * (1 + 1 + 2 + 5)


def test_copies_of_big_arrays_are_named_and_small_ones_are_not(module):
    assert module.passes(least_elements=1000) == ["copy.1"]
    assert module.passes(least_elements=10**6) == []


def test_the_compilers_guess_counts_bodies_as_often_as_they_run(module):
    assert module.estimated_cycles() == 64 * 100 + 7


def test_kernels_are_named_as_in_pallas_call(module):
    assert module.kernels() == ["scan.12"]
    assert [kernel_name(call) for call in ("scan.12", "scan", "scan_v2.3.clone.1")] == [
        "scan",
        "scan",
        "scan_v2",
    ]
