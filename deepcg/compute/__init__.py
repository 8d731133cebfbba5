"""What the machine needs: devices, threads, memory, precision of products, SIMD, graphs."""
