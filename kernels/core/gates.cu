// What the gates of recurrent layers are computed with: lstm.cu and gru.cu.

__device__ __forceinline__ ACC sigmoid(ACC x) {
    const ACC small = exp(-fabs(x)); // nothing overflows
    return (x < 0 ? small : (ACC)1) / (1 + small);
}

// Rounds to type T, and stores.
__device__ __forceinline__ ACC kept(ACC value, T &place) {
    narrow(value, place);
    return widen(place);
}
