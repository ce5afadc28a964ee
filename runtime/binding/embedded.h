/* embedded.h - the Lua library as bytes inside the binary; made by scripts/embed-lua. */
#ifndef MP_BINDING_EMBEDDED_H
#define MP_BINDING_EMBEDDED_H

struct mp__embedded {
    const char *module; /* "moonpool.task"; a NULL module ends the table */
    const char *chunk;  /* chunk name for messages */
    const char *start;
    const char *end;
};

extern const struct mp__embedded mp__embedded[] __attribute__((visibility("hidden")));

#endif
