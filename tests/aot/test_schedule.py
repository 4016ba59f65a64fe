"""Bundles, depths and turns are read as the compiler writes them."""

from griffin_eqx.aot.schedule import read_schedule

SCHEDULE = """\
= control target key start
LB: loop body
= control target key end

     0   :  { %6 = vsyncpa [#allocation4], 0  ;;  %s1_s0 = inlined_call_operand.hbm [shape: f32[8,8]] }
   0x1   :  { %8 = vsyncpa [#allocation5], 0 }
   0x2 LB: > { %s1 = sadd.s32 1, %s0 }
   0x3   : > { %706 = shalt.err (!%p703_p8) /* BoundsCheck 0
hlo: scan.1
 */ }
   0x4   :  {}
   0x6 LB: >> { %s2 = sadd.s32 1, %s3  ;;  %p6 = scmp.ge.s32.totalorder %s2, 16 /* loop exit test */ }
   0x7   : >> { %v1 = vld [vmem:[%s4] ss:$8 sm:$0xff] }
   0x8   : >> { %342 = sbr.rel (!%p6) target = bundleno = 6 (0x6), region = 184 }
   0x9   : > { %9 = vst [vmem:[%s4] sm:$0xff] %v1 }
   0xa LB: >> { %s5 = sadd.s32 1, %s6 }
   0xb   : >> { %7 = vnop 3 }
   0xc PF: > { %p1 = scmp.ge.s32.totalorder %s1, 10 /* loop exit test */ }
0x1000   : > { %10 = dma.done.wait [#allocation5], 128 }
0x1001   :  { %11 = vsyncpa [#allocation4], 1 }
"""


def _read(text=SCHEDULE):
    return [(loop.depth, loop.bundles, loop.turns) for loop in read_schedule(text).walk()]


def test_every_bundle_belongs_to_the_loop_it_stands_in():
    # The gap from 0xc to 0x1000 is bundles that the text leaves out; `vnop 3` waits three cycles.
    grid = 3 + 1 + 1 + (0x1000 - 0xC)
    assert _read() == [(0, 3, 1), (1, grid, 10), (2, 4, 16), (2, 5, None)]


def test_cycles_are_turns_times_bundles_and_unknown_where_turns_are():
    assert read_schedule(SCHEDULE).cycles is None
    known = SCHEDULE.replace(
        "%s5 = sadd.s32 1, %s6", "%p = scmp.ge.s32.totalorder %s5, 2 /* loop exit test */"
    )
    kernel = read_schedule(known)
    grid, first, second = kernel.inner[0], *kernel.inner[0].inner
    assert kernel.cycles == 3 + 10 * (grid.bundles + 16 * first.bundles + 2 * second.bundles)


def test_the_innermost_loop_is_the_heaviest_without_a_loop_inside():
    assert read_schedule(SCHEDULE).innermost.bundles == 5


def test_a_kernel_without_loops_is_its_own_innermost_loop():
    kernel = read_schedule("     0   :  { %6 = vsyncpa }\n   0x1   :  { %7 = vsyncpa }\n")
    assert (kernel.innermost.bundles, kernel.cycles) == (2, 2)
