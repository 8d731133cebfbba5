"""What the machine needs: devices, threads, memory, precision of products, SIMD, graphs.

================ ===================================================================================
allocator        memory that is freed and wanted again at once
device           where to compute
threads          compiled loops on as many threads as PyTorch has
matmul_precision in what precision matrices of float32 are multiplied
onednn           linear layers by oneDNN on the CPU
simd             vectors of numbers in compiled loops
loops            how loops are compiled, kept and called, and beads dealt to threads
formula_loops    formulas that several loops need: products of vectors, B-splines
graph_capture    a function of tensors as a graph
tensor_cache     what is made of tensors once, and again when they change
================ ===================================================================================

May import ``runtime``.
"""
