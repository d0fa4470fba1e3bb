"""CUPTI's callbacks at launches, by ctypes."""

import ctypes

import cupy as cp

cupti = ctypes.CDLL("libcupti.so.12")
INVALID_PARAMETER, MULTIPLE_SUBSCRIBERS = 1, 39
DRIVER_API, CU_LAUNCH_KERNEL = 1, 307


def test_launches_and_products_call_back_as_they_begin_and_end():
    a = cp.ones((4, 4), "f")
    a @ a
    a + a
    seen = []
    kind = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.POINTER(ctypes.c_int)
    )
    callback = kind(lambda _, domain, call, data: seen.append((domain, call, data[0])))
    subscriber = ctypes.c_void_p()
    assert cupti.cuptiSubscribe(ctypes.byref(subscriber), callback, None) == 0
    assert cupti.cuptiSubscribe(ctypes.byref(ctypes.c_void_p()), callback, None) == (
        MULTIPLE_SUBSCRIBERS
    )
    try:
        a + a
        assert seen == []
        assert cupti.cuptiEnableCallback(1, subscriber, DRIVER_API, CU_LAUNCH_KERNEL) == 0
        b = a @ a
        assert seen == [(DRIVER_API, CU_LAUNCH_KERNEL, site) for site in (0, 1)]
        a + b
        assert [site for *_, site in seen] == [0, 1, 0, 1]
        assert cupti.cuptiEnableCallback(0, subscriber, DRIVER_API, CU_LAUNCH_KERNEL) == 0
        a + a
        assert len(seen) == 4
    finally:
        assert cupti.cuptiUnsubscribe(subscriber) == 0
    assert cupti.cuptiUnsubscribe(None) == INVALID_PARAMETER
