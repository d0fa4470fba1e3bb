// Pixels of images that lie one below the other, `lines` of `width` places each. These may be more than an image has
// pixels: the places between are padding.

struct Pixel { INDEX image; int h, w; };

__device__ __forceinline__ Pixel pixel_at(INDEX place, int width, int lines) {
    const INDEX line = place / width, image = line / lines;
    return {image, (int)(line - image * lines), (int)(place - line * width)};
}

// Moves on by `step`, which is pixel_at of a number of places: digit by digit, without a division.
__device__ __forceinline__ void move(Pixel &pixel, const Pixel &step, int width, int lines) {
    pixel.w += step.w, pixel.h += step.h, pixel.image += step.image;
    if (pixel.w >= width) pixel.w -= width, ++pixel.h;
    if (pixel.h >= lines) pixel.h -= lines, ++pixel.image;
}
