"""Small runs, as the tests of training make them."""

from tests.training.conftest import make_config as make_config
from tests.training.conftest import text_file as text_file
from tests.training.conftest import usual_promotion as usual_promotion
