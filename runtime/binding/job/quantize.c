/*
 * quantize.c - one byte a number: the range of each dimension over all rows, then the rows by it.
 */
#include "binding/job/job.h"
#include "binding/value/matrix.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

static mp_matrix *push_range(lua_State *L, size_t cols)
{
    mp_matrix **box = mp__push_matrix_box(L);

    *box = mp_matrix_new(1, cols);
    if (*box == NULL)
        luaL_error(L, "out of memory for a range");
    memset(mp_matrix_data(*box), 0, cols * sizeof(float));
    return *box;
}

/* matrix_ranges(matrix, range or nil) -> a row with the largest absolute value of each column */
static int l_ranges(lua_State *L)
{
    mp_matrix *m = mp__check_matrix(L, 1), *range;
    size_t rows = mp_matrix_rows(m), cols = mp_matrix_cols(m);
    const float *p = mp_matrix_data(m);

    if (lua_isnoneornil(L, 2)) {
        range = push_range(L, cols);
    } else {
        range = mp__check_matrix(L, 2);
        luaL_argcheck(L, mp_matrix_cols(range) == cols, 2, "another number of columns");
        lua_pushvalue(L, 2);
    }
    for (size_t i = 0; i < rows; i++, p += cols) {
        float *most = mp_matrix_data(range);

        for (size_t k = 0; k < cols; k++)
            if (fabsf(p[k]) > most[k] && isfinite(p[k]))
                most[k] = fabsf(p[k]);
    }
    return 1;
}

/* matrix_int8(matrix, range) -> its rows as bytes: 127 is the range; NaN is 0. */
static int l_int8(lua_State *L)
{
    mp_matrix *m = mp__check_matrix(L, 1), *range = mp__check_matrix(L, 2);
    size_t rows = mp_matrix_rows(m), cols = mp_matrix_cols(m);
    const float *p = mp_matrix_data(m), *most = mp_matrix_data(range);
    luaL_Buffer b;
    char *out;

    luaL_argcheck(L, mp_matrix_cols(range) == cols, 2, "another number of columns");
    out = luaL_buffinitsize(L, &b, rows * cols);
    for (size_t i = 0; i < rows * cols; i++) {
        float v = most[i % cols] > 0 ? p[i] / most[i % cols] * 127.0f : 0;

        out[i] = (char)(int8_t)(isfinite(v) ? lrintf(fmaxf(-127, fminf(127, v))) : 0);
    }
    luaL_pushresultsize(&b, rows * cols);
    return 1;
}

void mp__open_job_quantize(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"matrix_ranges", l_ranges}, {"matrix_int8", l_int8}, {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
