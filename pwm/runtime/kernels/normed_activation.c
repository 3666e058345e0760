/* LayerNorm and the activation after it, forward and backward, one pass over memory each.
 *
 * x is (groups, n, each, width); row r of it belongs to network p = group * each + member, whose
 * parameters are rows p of (groups * each, width) matrices. Results are (groups * each, n, width).
 * Loops run over chunks of rows whose bounds do not depend on the number of threads, and so do
 * sums over rows. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LARGEST 30.0f /* from here on Mish is the identity in float32 */

typedef struct {
    int64_t groups, n, each, width;
    int64_t simplex; /* entries of a SimNorm group, 0 for Mish */
    int64_t parts;   /* of the n rows, each with a linear bias of its own */
    float epsilon;
    int64_t chunks;
    int threads;
} Shape;

static inline float fast_exp(float x) { /* to 2 units in the last place, for -87 < x < 88 */
    x = x < -87.0f ? -87.0f : x;
    float k = rintf(x * 1.44269504f);
    float r = x - k * 0.693359375f;
    r = r + k * 2.12194440e-4f;
    float y = 1.98756915e-4f;
    y = y * r + 1.39819994e-3f;
    y = y * r + 8.33345205e-3f;
    y = y * r + 4.16657962e-2f;
    y = y * r + 1.66666657e-1f;
    y = y * r + 0.5f;
    y = y * (r * r) + r + 1.0f;
    int32_t bits = ((int32_t)k + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return y * scale;
}

static inline void simplex_forward(float *z, int64_t width, int64_t simplex) {
    for (int64_t w = 0; w < width; w += simplex) {
        float most = z[w];
        for (int64_t v = 1; v < simplex; v++) most = z[w + v] > most ? z[w + v] : most;
        for (int64_t v = 0; v < simplex; v++) z[w + v] -= most;
    }
#pragma omp simd
    for (int64_t w = 0; w < width; w++) z[w] = fast_exp(z[w]);
    for (int64_t w = 0; w < width; w += simplex) {
        float sum = 0.0f;
        for (int64_t v = 0; v < simplex; v++) sum += z[w + v];
        float scale = 1.0f / sum;
        for (int64_t v = 0; v < simplex; v++) z[w + v] *= scale;
    }
}

/* d: gradient of the simplexes y on entry, of their logits on return. */
static inline void simplex_backward(float *d, const float *y, int64_t width, int64_t simplex) {
    for (int64_t w = 0; w < width; w += simplex) {
        float dot = 0.0f;
        for (int64_t v = 0; v < simplex; v++) dot += d[w + v] * y[w + v];
        for (int64_t v = 0; v < simplex; v++) d[w + v] = y[w + v] * (d[w + v] - dot);
    }
}

void normed_forward(Shape s, const float *x, const float *linear_bias, const float *weight,
                    const float *bias, float *out, float *mean, float *rstd) {
    int64_t rows = s.groups * s.n * s.each, width = s.width;
#pragma omp parallel for schedule(static) num_threads(s.threads)
    for (int64_t r = 0; r < rows; r++) {
        int64_t e = r % s.each, i = r / s.each % s.n, p = r / (s.n * s.each) * s.each + e;
        const float *a = x + r * width, *g = weight + p * width, *b = bias + p * width;
        float *y = out + (p * s.n + i) * width;
        float sum = 0.0f, squares = 0.0f;
        if (linear_bias) {
            const float *l = linear_bias + (p * s.parts + i * s.parts / s.n) * width;
#pragma omp simd reduction(+ : sum)
            for (int64_t w = 0; w < width; w++) sum += y[w] = a[w] + l[w];
        } else {
#pragma omp simd reduction(+ : sum)
            for (int64_t w = 0; w < width; w++) sum += y[w] = a[w];
        }
        float m = sum / (float)width;
#pragma omp simd reduction(+ : squares)
        for (int64_t w = 0; w < width; w++) squares += (y[w] - m) * (y[w] - m);
        float scale = 1.0f / sqrtf(squares / (float)width + s.epsilon);
        mean[r] = m;
        rstd[r] = scale;
        if (s.simplex) {
#pragma omp simd
            for (int64_t w = 0; w < width; w++) y[w] = (y[w] - m) * scale * g[w] + b[w];
            simplex_forward(y, width, s.simplex);
        } else {
#pragma omp simd
            for (int64_t w = 0; w < width; w++) {
                float z = (y[w] - m) * scale * g[w] + b[w];
                float q = fast_exp(z < LARGEST ? z : LARGEST);
                float q2 = q * (q + 2.0f);
                y[w] = z * (q2 / (q2 + 2.0f));
            }
        }
    }
}

/* h: room for a row. sums: where the gradients of the row's parameters are added, or null. */
static void backward_row(const Shape *s, const float *d_out, const float *a, const float *l,
                         const float *out, float m, float scale, const float *g, const float *b,
                         float *dx, float *h, float *sums) {
    int64_t width = s->width, kind = s->groups * s->each * width; /* from one sum to the next */
    float along = 0.0f, across = 0.0f; /* sums of d and of d times the normalized input */
    if (l) {
#pragma omp simd
        for (int64_t w = 0; w < width; w++) h[w] = (a[w] + l[w] - m) * scale;
    } else {
#pragma omp simd
        for (int64_t w = 0; w < width; w++) h[w] = (a[w] - m) * scale;
    }
    if (s->simplex) {
        memcpy(dx, d_out, (size_t)width * sizeof(float));
        simplex_backward(dx, out, width, s->simplex);
    } else {
#pragma omp simd
        for (int64_t w = 0; w < width; w++) {
            float z = h[w] * g[w] + b[w];
            float q = fast_exp(z < LARGEST ? z : LARGEST);
            float q2 = q * (q + 2.0f), gate = q2 / (q2 + 2.0f);
            dx[w] = d_out[w] * (gate + z * (1.0f - gate * gate) * (q / (q + 1.0f)));
        }
    }
    if (sums) {
#pragma omp simd
        for (int64_t w = 0; w < width; w++) sums[w] += dx[w] * h[w];
#pragma omp simd
        for (int64_t w = 0; w < width; w++) sums[kind + w] += dx[w];
    }
#pragma omp simd reduction(+ : along, across)
    for (int64_t w = 0; w < width; w++) {
        float d = dx[w] * g[w];
        along += d;
        across += d * h[w];
    }
    along /= (float)width;
    across /= (float)width;
#pragma omp simd
    for (int64_t w = 0; w < width; w++) dx[w] = (dx[w] * g[w] - along - h[w] * across) * scale;
    if (sums && l) {
#pragma omp simd
        for (int64_t w = 0; w < width; w++) sums[2 * kind + w] += dx[w];
    }
}

/* partial: (chunks, 3, groups * each, width) zeros, or null where parameters need no gradient. */
void normed_backward(Shape s, const float *d_out, const float *x, const float *linear_bias,
                     const float *weight, const float *bias, const float *out, const float *mean,
                     const float *rstd, float *dx, float *partial) {
    int64_t rows = s.groups * s.n * s.each, width = s.width, networks = s.groups * s.each;
#pragma omp parallel for schedule(static) num_threads(s.threads)
    for (int64_t chunk = 0; chunk < s.chunks; chunk++) {
        int64_t last = rows * (chunk + 1) / s.chunks;
        float *h = malloc((size_t)width * sizeof(float));
        for (int64_t r = rows * chunk / s.chunks; r < last; r++) {
            int64_t e = r % s.each, i = r / s.each % s.n, p = r / (s.n * s.each) * s.each + e;
            int64_t to = (p * s.n + i) * width;
            backward_row(&s, d_out + to, x + r * width,
                         linear_bias ? linear_bias + (p * s.parts + i * s.parts / s.n) * width : 0, out + to, mean[r], rstd[r],
                         weight + p * width, bias + p * width, dx + r * width, h,
                         partial ? partial + (chunk * 3 * networks + p) * width : 0);
        }
        free(h);
    }
}
