from typing import Any

cgutils: Any
config: Any
