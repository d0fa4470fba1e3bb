"""``python -m bench issue``: the instructions of inner loops, read from a disassembly, and held to a table."""

import json

import pytest

from bench import issue
from bench.issue import Loop, _loops, growth, variants
from kernels.core.tensor_tiles import BACKWARD_WEIGHT, FORWARD
from tests.support import nvrtc

BODY = """
.L_x_1:
        /*0000*/                   IADD3 R1, R1, 0x1, RZ ;
.L_x_2:
        /*0010*/                   HMMA.1688.F32.TF32 R4, R8, R12, R4 ;
        /*0020*/              @!P0 IADD3 R2, R2, 0x1, RZ ;
        /*0030*/               @P1 BRA `(.L_x_2) ;
        /*0040*/               @P2 BRA `(.L_x_3) ;
        /*0050*/                   UISETP.NE.AND UP0, UPT, UR4, URZ, UPT ;
        /*0060*/                   BRA `(.L_x_1) ;
.L_x_3:
        /*0070*/                   EXIT ;
"""

READY = pytest.mark.skipif(
    nvrtc.library() is None or issue.disassembler() is None,
    reason="NVRTC or nvdisasm is not installed (pip install nvidia-cuda-nvdisasm)",
)


def test_loops_are_what_lies_between_a_label_and_a_branch_back_to_it():
    inner = ["HMMA.1688.F32.TF32", "IADD3", "BRA"]
    assert list(_loops(BODY)) == [inner, ["IADD3", *inner, "BRA", "UISETP.NE.AND", "BRA"]]


@pytest.mark.parametrize(("loop", "ceiling"), [(Loop(160, 8), 0.4), (Loop(256, 32), 1.0), (Loop(64, 32), 1.0)])
def test_the_ceiling_is_what_a_scheduler_can_issue(loop, ceiling):
    assert loop.ceiling == ceiling


def test_instructions_for_a_product_may_grow_by_a_twentieth():
    variant = variants()[0]
    table = {str(variant): {"80": [100, 8]}}
    for loop in (Loop(105, 8), Loop(200, 16), Loop(60, 8)):
        assert growth({(variant, 80): loop}, table) == []
    assert growth({(variant, 80): Loop(106, 8)}, table) == [
        f"{variant} on sm_80: 106 instructions for 8 HMMA, expected about 100 for 8"
    ]
    assert growth({(variant, 90): Loop(10, 8)}, table) == [f"{variant} on sm_90 is not in issue.json; --write adds it"]


def test_the_table_has_every_kernel_and_architecture():
    table = json.loads(issue.TABLE.read_text(encoding="utf-8"))
    assert set(table) == {str(variant) for variant in variants()}
    assert all(set(row) == set(map(str, issue.ARCHITECTURES)) for row in table.values())


@pytest.mark.parametrize(
    ("product", "columns", "halo", "least"),
    [
        (FORWARD, 16, 0, 0.40),
        (FORWARD, 32, 0, 0.65),
        (FORWARD, 64, 0, 0.85),
        (FORWARD, 16, 1, 0.47),
        (FORWARD, 32, 1, 0.85),
        (FORWARD, 64, 2, 0.80),  # a copy of the next channels, one of many at one tap of nine, is counted at each
        (BACKWARD_WEIGHT, 16, 1, 0.59),  # one copy is counted for a tile, of the few that a thread makes
        (BACKWARD_WEIGHT, 32, 1, 0.59),
        (BACKWARD_WEIGHT, 64, 1, 0.59),
    ],
)
def test_issuing_lets_one_product_of_tf32_reach_most_of_an_a100(product, columns, halo, least):
    table = json.loads(issue.TABLE.read_text(encoding="utf-8"))
    (chosen,) = (
        variant
        for variant in variants()
        if (variant.product, variant.dtype, variant.passes, variant.halo) == (product, "float32", 1, halo)
        and columns == variant.tile.BN
        and variant.tile.BM >= 128
    )
    assert Loop(*table[str(chosen)]["80"]).ceiling >= least


@READY
def test_a_kernel_is_as_the_table_says():
    chosen = variants()[0]
    table = json.loads(issue.TABLE.read_text(encoding="utf-8"))
    assert growth({(chosen, 80): issue.count(chosen, 80)}, table) == []


@READY
def test_a_name_that_no_kernel_begins_with_is_said(bench):
    result = bench("issue", "--only", "conf")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "no kernel begins with 'conf'; there are, for one, conv_forward float32" in result.err
