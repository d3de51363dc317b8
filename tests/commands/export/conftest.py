"""The tiny models of the encoders' tests, here too."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_PATH = Path(__file__).parents[2] / "lightning_modules" / "encoders" / "conftest.py"
_spec = spec_from_file_location("encoders_conftest", _PATH)
assert _spec is not None
assert _spec.loader is not None
_models = module_from_spec(_spec)
_spec.loader.exec_module(_models)

clip_folder, siglip_folder = _models.clip_folder, _models.siglip_folder
tiny_open_clip, edit_json = _models.tiny_open_clip, _models.edit_json
