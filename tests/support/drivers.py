"""The drivers that mounts are tested over.

A test file whose `pytestmark` is `over_each_driver` runs once over each; its fixtures of more than one test that mount
something ask for `driver` too, or they would keep the mounts of another. All other files run over the first.
"""

import pytest

from support.mounting import DRIVERS

over_each_driver = [pytest.mark.usefixtures("driver"), pytest.mark.parametrize("driver", DRIVERS, indirect=True)]
