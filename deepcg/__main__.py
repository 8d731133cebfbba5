"""``python -m deepcg``."""

from deepcg.cli import main

if __name__ == "__main__":
    main()
