"""DeepPot-SE: embedding, descriptor, its CPU path, tables and DeePMD-kit's weights."""
