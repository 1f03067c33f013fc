"""Calls that stall are left behind, slow ones are not."""
import threading
import time

import pytest

from vop_mm.utils.stalls import call_unless_stalled


def test_what_gets_on_may_take_as_long_as_it_likes():
    def slow(alive):
        for _ in range(8):
            time.sleep(0.1)
            alive()
        return 7

    assert call_unless_stalled(slow, 0.4) == 7


def test_what_it_raises_is_raised():
    def fail(alive):
        raise PermissionError(13, 'Permission denied')

    with pytest.raises(PermissionError):
        call_unless_stalled(fail, 5)


@pytest.mark.parametrize('signs', [0, 3])
def test_what_stalls_is_left_behind(signs):
    woken = threading.Event()

    def stall(alive):
        for _ in range(signs):
            alive()
        woken.wait()

    start = time.monotonic()
    with pytest.raises(TimeoutError, match='no answer for 0.3 s'):
        call_unless_stalled(stall, 0.3)
    assert time.monotonic() - start < 5
    woken.set()
