"""``python -m deepcg``."""

from deepcg.cli.main import main

if __name__ == "__main__":
    main()
