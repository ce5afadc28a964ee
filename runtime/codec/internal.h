/*
 * internal.h - the decoder's inside, shared by its files.
 *
 *   decode.c         the public calls, the JSON structure, which value is what
 *   decode_string.c  strings and keys: escapes, UTF-8
 *   decode_vec.c     the vectors: numbers, base64
 *   decode_item.c    items: their place, the dimension, where vectors go, faults of single rows
 *   decode_known.c   errors, dimension, usage, model, to be asked for
 *   decode_raw.c     vectors as bytes, laid out by a header
 *
 * Every eater takes the chunk's rest and returns how far it got, NULL after fail(). All state is
 * here, so a chunk may end anywhere.
 */
#ifndef MP_CODEC_INTERNAL_H
#define MP_CODEC_INTERNAL_H

#include "codec/base64.h"
#include "base/buf.h"
#include "codec/decode.h"
#include "codec/number.h"

_Static_assert(MP__ENOMEM == MP_ENOMEM, "base and the public header agree");

#define MAX_PATHS 4 /* alternatives in shape.list */
#define MAX_SEGS  6
#define MAX_KEY   64
#define MAX_HELD  4 /* vectors of as many lengths, before two agree */

enum state {
    VALUE, /* a value must come */
    VALUE_OR_END,
    KEY,
    KEY_OR_END,
    COLON,
    AFTER, /* a comma or the container's end */
    STRING,
    NUMBER,
    LITERAL,
    ELEMENT, /* in a vector of numbers */
    ELEMENT_NUMBER,
    ELEMENT_AFTER,
    END /* the document is complete */
};

/* What a container, or a string or number, is for. */
enum role {
    REST, /* outside the list: kept */
    LIST,
    ITEM,
    INSIDE, /* an object in an item, on the way to one of its fields */
    SKIP,   /* inside an item: checked, not kept */
    SPOILT, /* stands where a vector or an item should: skipped, its row has a fault */
    VECTOR, /* a string of base64 */
    INDEX,
    COUNT, /* an item's tokens */
    NAME   /* a key */
};

enum field { IN_VECTOR, IN_INDEX, IN_TOKENS, IN_CUT, FIELDS }; /* what is looked for in an item */

enum text { TEXT, UTF8, ESCAPE, HEX, LOW_SLASH, LOW_U };

struct frame {
    uint8_t object;
    uint8_t role;
    uint8_t paths; /* bits of the alternatives, or of an item's fields, that lead through here */
    uint32_t at;   /* of an array outside the list: values begun */
};

struct path {
    uint32_t n;
    struct {
        const char *p;
        size_t n;
        int64_t place; /* the same as a place in an array; -1: it is no number */
    } seg[MAX_SEGS];
};

struct str {
    uint8_t role;
    uint8_t text; /* enum text */
    uint8_t need; /* UTF-8 bytes still to come */
    uint8_t lo;   /* range of the next one */
    uint8_t hi;
    uint8_t hex;   /* digits read */
    uint8_t odd;   /* an escape was met, or an index that is no number */
    uint16_t unit; /* \uXXXX */
    uint16_t high; /* a high surrogate waiting for its low one */
};

/* What is wrong with one row. */
enum why {
    SOUND,
    NO_VECTOR, /* the item has none */
    NO_ITEM,   /* the reply has no item for it */
    NO_OBJECT, /* the item is something else */
    NO_LIST,   /* the vector is something else */
    IS_NULL,
    IS_EMPTY,
    ELEMENT_NULL,
    ELEMENT_ODD,
    ELEMENT_NAN,
    ELEMENT_HUGE,
    ELEMENT_RANGE,
    NOT_BASE64,
    BASE64_END,
    BASE64_SIZE,
    VECTOR_NAN,
    ALL_ZERO,
    DIMENSION,
    TOO_LONG
};

struct fault {
    uint32_t row;
    uint32_t why;  /* enum why */
    uint64_t a, b; /* the numbers in its words */
};

struct item {
    uint32_t index; /* in the reply; valid when placed */
    uint8_t placed; /* index is known and counted */
    uint8_t vector; /* the vector is complete, or there is a fault */
    uint8_t waits;  /* ... and waits in the scratch for its index or the dimension */
    struct fault fault;
};

/* A complete vector, and where it is to go. */
struct whole {
    const uint8_t *p;
    size_t n; /* elements, or bytes if base64 */
    uint32_t index;
    uint8_t bytes; /* base64 */
};

struct vec {
    uint8_t *p;   /* the row itself or the scratch */
    size_t n;     /* elements (numbers), or bytes (base64) */
    size_t cap;   /* the same */
    size_t limit; /* cap may not grow past this */
    uint8_t direct;
    uint8_t bytes;  /* base64 */
    uint8_t spoilt; /* there is a fault: the rest of the string is only checked */
    struct mp__b64 b64;
};

struct segment { /* of a body of bytes: one vector */
    uint64_t start;
    uint64_t end;
    uint32_t item;
};

enum raw_kind { RAW_F32 = 1, RAW_F64, RAW_F16, RAW_BF16 };

struct raw {
    uint64_t head;      /* bytes of JSON before the vectors that are still to come */
    uint8_t on;         /* the bytes that come are vectors */
    uint8_t kind;       /* enum raw_kind */
    uint8_t swap;       /* big-endian */
    uint32_t at;        /* vectors finished */
    uint32_t nsegments; /* 0: item after item, `bytes` each */
    size_t bytes;       /* of the vector being read */
    size_t n;           /* of these, read so far */
    uint8_t *to;        /* the row, or the scratch */
};

struct mp__decoder {
    struct mp__decoder_cfg cfg;
    struct path path[MAX_PATHS];
    uint32_t paths;
    struct path field[FIELDS];
    uint8_t fields; /* bits of those that the shape names */

    /* kept over a reset */
    uint8_t *scratch;
    size_t scratch_cap;
    uint64_t *seen; /* a bit an item */
    size_t seen_cap;
    struct segment *segments;
    size_t segments_cap;
    struct mp__buf rest;
    struct fault *faults;
    size_t faults_cap;
    struct whole held[MAX_HELD]; /* until the dimension is known; p is malloc'ed */
    uint32_t nheld;

    /* cleared by a reset, from here to the end */
    int failed;
    uint8_t state;
    uint8_t listed;  /* the list was met */
    uint8_t key_odd; /* the key had an escape or was too long: equal to no name */
    uint8_t role;    /* of the number or literal being read */
    uint8_t lenient; /* inside a spoilt value: NaN and Infinity may stand there */
    uint8_t unnamed; /* an item had no index */
    uint32_t depth;
    uint32_t key_n;
    uint32_t position; /* of the item in the list */
    uint32_t done;     /* vectors delivered */
    uint32_t nfaults;
    uint32_t dim;
    uint32_t item_depth; /* of the item's object */
    uint32_t one;        /* of the value that is the only vector; 0: none */
    uint32_t cuts;       /* items that were truncated */
    uint8_t counted;     /* items told their tokens */
    uint8_t flat;        /* the vector being read is the whole tensor */
    int64_t tokens;
    uint64_t base; /* bytes fed before this chunk */
    const char *chunk;
    const char *literal; /* what of it is still to come */
    struct str str;
    struct item item;
    struct vec vec;
    struct raw raw;
    struct frame frame[MP__MAX_NESTING];
    char key[MAX_KEY];
    char error[192];
    struct mp__num num; /* last: its digits need no clearing */
};

__attribute__((format(printf, 2, 3))) const char *mp__dec_fail(struct mp__decoder *d,
                                                               const char *fmt, ...);
const char *mp__dec_oom(struct mp__decoder *d);
unsigned long long mp__dec_at(const struct mp__decoder *d, const char *p);
int mp__dec_keep(struct mp__decoder *d, const char *p, size_t n); /* into the rest; 0 failed */

void mp__dec_string_start(struct mp__decoder *d, int role);
const char *mp__dec_string(struct mp__decoder *d, const char *p, const char *end);

int mp__dec_place(struct mp__decoder *d, uint64_t index); /* the item's index is known; 0 failed */
int mp__dec_position(struct mp__decoder *d);              /* d->num is the item's index; 0 failed */
void mp__dec_fault(struct mp__decoder *d, enum why why, uint64_t a, uint64_t b);
/* Does this vector say nothing, and may it not? */
int mp__dec_zero(const struct mp__decoder *d, const float *x, size_t n);
int mp__dec_row_fault(struct mp__decoder *d, enum why why, uint32_t row); /* 0 failed */
float *mp__dec_row(struct mp__decoder *d, uint32_t index);                /* NULL: failed */
/* A value is over, and with it perhaps the item; 0 failed. */
int mp__dec_over(struct mp__decoder *d);
int mp__dec_settle(struct mp__decoder *d); /* the reply is over: what is held, what is missing */
void mp__dec_let_go(struct mp__decoder *d);

int mp__dec_packed(const struct mp__decoder *d);      /* bits, eight to a byte */
int mp__dec_vec_start(struct mp__decoder *d, char c); /* c is '[' or '"' */
int mp__dec_vec_char(struct mp__decoder *d, char c);  /* one unescaped base64 character */
const char *mp__dec_vec_base64(struct mp__decoder *d, const char *p, const char *end);
const char *mp__dec_vec_numbers(struct mp__decoder *d, const char *p, const char *end);
int mp__dec_vec_end(struct mp__decoder *d);
int mp__dec_flat_start(struct mp__decoder *d); /* the list turned out to hold numbers; 0 failed */
/* The rest of a vector of numbers is a spoilt value from here on, in this state. */
void mp__dec_vec_spoilt(struct mp__decoder *d, int state);

int mp__dec_raw_layout(struct mp__decoder *d, const char *json, size_t n); /* or MP_ENOMEM */
int mp__dec_raw_start(struct mp__decoder *d); /* the JSON head is complete; 0 failed */
int mp__dec_raw(struct mp__decoder *d, const char *p, size_t n);
int mp__dec_raw_finish(struct mp__decoder *d);

#endif
