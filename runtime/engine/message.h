/* message.h - errors in words: what happened, and what to do about it. */
#ifndef MP_ENGINE_MESSAGE_H
#define MP_ENGINE_MESSAGE_H

#include <stddef.h>

struct mp__xfer;

/* "HTTP 422: inputs must be a list". The reason is the error text of the body, whatever dialect. */
void mp__status_message(char *out, size_t cap, int status, const char *body, size_t body_len);
/* Adds which URL it was, for a status that says there is no such thing. */
void mp__status_where(char *out, size_t cap, int status, const char *method, const char *url);

/* The error text of a body alone, "" when there is none. */
void mp__status_reason(char *out, size_t cap, const char *body, size_t body_len);

/* Is the body an error, {"error": ...} or {"object": "error"}? 1: its words, and the status it names
 * (0: none). */
int mp__error_reply(const char *body, size_t n, int *status, char *words, size_t cap);

/* A transport fault: refused, reset, TLS. */
void mp__fault_message(char *out, size_t cap, const struct mp__xfer *x);

#endif
