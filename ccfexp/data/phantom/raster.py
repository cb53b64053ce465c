"""Compiled geometry kernels: a z-buffer and vertex normals.

A z-buffer instead of the painter's algorithm: lids, lips and teeth are ordered per sub-pixel, so sorting errors (specks
at lids and lips) cannot occur. Eyeballs are pushed back by ``EYE_BIAS`` so that a closed lid always covers them.
"""

import numpy as np
from numba import njit

from ccfexp.data.phantom.head import FloatArray, IntArray

EYE_BIAS = 0.10  # mesh units


@njit(cache=True, fastmath=False)
def z_buffer(
    point_V3: FloatArray, triangle_T3: IntArray, depth_bias_T: FloatArray, size: int
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Front-most triangle of every sample of a ``size`` x ``size`` grid.

    Args:
        point_V3: projected vertices: x, y in samples (pixel-edge origin, y down), depth towards the camera.
        triangle_T3: vertex indices; triangles that turn their back are culled.
        depth_bias_T: subtracted from each triangle's depth for the comparison only.
        size: samples per side.

    Returns:
        Triangle ids [size*size] (-1 where nothing is hit), barycentric weights [size*size, 3] and depth [size*size].
    """
    ids = np.full(size * size, -1, np.int64)
    bary = np.zeros((size * size, 3), np.float32)
    depth = np.full(size * size, -1e9, np.float32)
    nearest = np.full(size * size, -1e9, np.float32)
    for t in range(triangle_T3.shape[0]):
        i, j, k = triangle_T3[t, 0], triangle_T3[t, 1], triangle_T3[t, 2]
        x0, y0, z0 = point_V3[i, 0], point_V3[i, 1], point_V3[i, 2]
        x1, y1, z1 = point_V3[j, 0], point_V3[j, 1], point_V3[j, 2]
        x2, y2, z2 = point_V3[k, 0], point_V3[k, 1], point_V3[k, 2]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area > -1e-4:
            continue
        left = max(int(np.ceil(min(x0, x1, x2) - 0.5)), 0)
        right = min(int(np.floor(max(x0, x1, x2) - 0.5)), size - 1)
        top = max(int(np.ceil(min(y0, y1, y2) - 0.5)), 0)
        bottom = min(int(np.floor(max(y0, y1, y2) - 0.5)), size - 1)
        inverse = 1.0 / area
        for row in range(top, bottom + 1):
            py = row + 0.5
            for column in range(left, right + 1):
                px = column + 0.5
                b1 = ((px - x0) * (y2 - y0) - (py - y0) * (x2 - x0)) * inverse
                b2 = ((py - y0) * (x1 - x0) - (px - x0) * (y1 - y0)) * inverse
                b0 = 1.0 - b1 - b2
                if b0 < -1e-6 or b1 < -1e-6 or b2 < -1e-6:
                    continue
                z = b0 * z0 + b1 * z1 + b2 * z2
                place = row * size + column
                if z - depth_bias_T[t] > nearest[place]:
                    nearest[place] = z - depth_bias_T[t]
                    depth[place] = z
                    ids[place] = t
                    bary[place, 0], bary[place, 1], bary[place, 2] = b0, b1, b2
    return ids, bary, depth


@njit(cache=True, fastmath=False)
def vertex_normals(vertex_V3: FloatArray, triangle_T3: IntArray) -> FloatArray:
    """Area-weighted unit normals [V,3] of a triangle mesh."""
    normals = np.zeros_like(vertex_V3)
    for t in range(triangle_T3.shape[0]):
        i, j, k = triangle_T3[t, 0], triangle_T3[t, 1], triangle_T3[t, 2]
        ax, ay, az = (
            vertex_V3[j, 0] - vertex_V3[i, 0],
            vertex_V3[j, 1] - vertex_V3[i, 1],
            vertex_V3[j, 2] - vertex_V3[i, 2],
        )
        bx, by, bz = (
            vertex_V3[k, 0] - vertex_V3[i, 0],
            vertex_V3[k, 1] - vertex_V3[i, 1],
            vertex_V3[k, 2] - vertex_V3[i, 2],
        )
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        for v in (i, j, k):
            normals[v, 0] += nx
            normals[v, 1] += ny
            normals[v, 2] += nz
    for v in range(vertex_V3.shape[0]):
        length = np.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2) + 1e-9
        normals[v, 0] /= length
        normals[v, 1] /= length
        normals[v, 2] /= length
    return normals


@njit(cache=True, fastmath=False)
def interpolate(attribute_VC: FloatArray, triangle_T3: IntArray, ids_N: IntArray, bary_N3: FloatArray) -> FloatArray:
    """Vertex attributes [N,C] at barycentric points of triangles."""
    channels = attribute_VC.shape[1]
    out = np.empty((ids_N.shape[0], channels), np.float32)
    for n in range(ids_N.shape[0]):
        i, j, k = triangle_T3[ids_N[n], 0], triangle_T3[ids_N[n], 1], triangle_T3[ids_N[n], 2]
        b0, b1, b2 = bary_N3[n, 0], bary_N3[n, 1], bary_N3[n, 2]
        for c in range(channels):
            out[n, c] = b0 * attribute_VC[i, c] + b1 * attribute_VC[j, c] + b2 * attribute_VC[k, c]
    return out


@njit(cache=True, fastmath=False)
def sample_texture(texture_HWC: FloatArray, u_N: FloatArray, v_N: FloatArray) -> FloatArray:
    """Bilinear look-up [N,C] at texel coordinates u (column) and v (row), clamped to the texture."""
    height, width, channels = texture_HWC.shape
    out = np.empty((u_N.shape[0], channels), np.float32)
    for n in range(u_N.shape[0]):
        u = min(max(u_N[n], np.float32(0.0)), np.float32(width - 1.01))
        v = min(max(v_N[n], np.float32(0.0)), np.float32(height - 1.01))
        ui, vi = int(u), int(v)
        fu, fv = u - ui, v - vi
        for c in range(channels):
            above = texture_HWC[vi, ui, c] * (1 - fu) + texture_HWC[vi, ui + 1, c] * fu
            below = texture_HWC[vi + 1, ui, c] * (1 - fu) + texture_HWC[vi + 1, ui + 1, c] * fu
            out[n, c] = above * (1 - fv) + below * fv
    return out
