/*
 * json_text.h - the characters of JSON that every reader of it meets: white space, \uXXXX.
 */
#ifndef MP_CODEC_JSON_TEXT_H
#define MP_CODEC_JSON_TEXT_H

static inline int mp__json_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* The first character from p on that is no white space, or end. */
static inline const char *mp__json_skip(const char *p, const char *end)
{
    while (p < end && mp__json_space(*p))
        p++;
    return p;
}

/* The value of four hexadecimal digits, or -1. */
static inline int mp__json_hex4(const char *p)
{
    int v = 0;

    for (int i = 0; i < 4; i++) {
        char c = p[i];

        v <<= 4;
        if (c >= '0' && c <= '9')
            v |= c - '0';
        else if (c >= 'a' && c <= 'f')
            v |= c - 'a' + 10;
        else if (c >= 'A' && c <= 'F')
            v |= c - 'A' + 10;
        else
            return -1;
    }
    return v;
}

#endif
