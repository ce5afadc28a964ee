/*
 * replay.c - a server that costs next to nothing: every POST is answered by the same vectors.
 *
 *   replay FORM ROWS DIM [DELAY_MS]     FORM: float, base64, bytes or small
 *
 * Prints its port and serves until it is killed, a thread a connection. The reply has ROWS vectors
 * of DIM floats in OpenAI's form ("bytes": packed, as vLLM sends them), so the client must send
 * batches of ROWS; its bytes are made once.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "codec/base64.h"

static struct mp__buf reply;
static unsigned delay_ms;

static void check(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static float value(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (float)((double)(int64_t)*state / 1e20);
}

static void add_row(struct mp__buf *b, int base64, size_t dim, uint64_t *state)
{
    float *row = malloc(dim * sizeof(float));
    char *text = malloc(MP__BASE64_ENCODED(dim * sizeof(float)) + 1), one[64];
    size_t i;

    check(row != NULL && text != NULL, "malloc");
    for (i = 0; i < dim; i++)
        row[i] = value(state);
    if (base64) {
        mp__buf_addc(b, '"');
        mp__buf_add(b, text, mp__base64_encode(text, row, dim * sizeof(float)));
        mp__buf_addc(b, '"');
    }
    for (i = 0; !base64 && i < dim; i++) {
        int n = snprintf(one, sizeof(one), "%c%.9g", i == 0 ? '[' : ',', (double)row[i]);

        mp__buf_add(b, one, (size_t)n);
    }
    if (!base64)
        mp__buf_addc(b, ']');
    free(row);
    free(text);
}

static void make_reply(const char *form, size_t rows, size_t dim)
{
    struct mp__buf body;
    uint64_t state = 0x9E3779B97F4A7C15u;
    char line[256];
    size_t i;

    mp__buf_init(&body, 0);
    mp__buf_init(&reply, 0);
    if (strcmp(form, "small") == 0) {
        mp__buf_adds(&body, "{\"ok\":true,\"id\":1234567}");
    } else {
        mp__buf_adds(&body, "{\"object\":\"list\",\"data\":[");
        for (i = 0; i < rows; i++) {
            snprintf(line, sizeof(line),
                     "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":", i == 0 ? "" : ",",
                     i);
            mp__buf_adds(&body, line);
            add_row(&body, strcmp(form, "base64") == 0, dim, &state);
            mp__buf_addc(&body, '}');
        }
        mp__buf_adds(&body,
                     "],\"model\":\"m\",\"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}}");
    }
    snprintf(line, sizeof(line),
             "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
             body.n);
    mp__buf_adds(&reply, line);
    check(mp__buf_add(&reply, body.p, body.n) == 0, "memory");
    mp__buf_free(&body);
}

/* Reads one request; 0 when the connection has ended. */
static int eat_request(int fd, char *buf, size_t cap, size_t *have)
{
    char *head_end = NULL, *at;
    size_t length = 0, left;
    ssize_t n;

    for (;;) {
        buf[*have] = '\0';
        head_end = strstr(buf, "\r\n\r\n");
        if (head_end != NULL)
            break;
        n = *have < cap - 1 ? read(fd, buf + *have, cap - 1 - *have) : 0;
        if (n <= 0)
            return 0;
        *have += (size_t)n;
    }
    at = strcasestr(buf, "\ncontent-length:");
    if (at != NULL && at < head_end)
        length = strtoul(at + 16, NULL, 10);
    if (strcasestr(buf, "\nexpect: 100") != NULL)
        check(write(fd, "HTTP/1.1 100 Continue\r\n\r\n", 25) == 25, "write");
    left = *have - (size_t)(head_end + 4 - buf);
    if (left > length) {
        memmove(buf, head_end + 4 + length, left - length);
        *have = left - length;
        return 1;
    }
    *have = 0;
    for (length -= left; length > 0; length -= (size_t)n) {
        n = read(fd, buf, length < cap - 1 ? length : cap - 1);
        if (n <= 0)
            return 0;
    }
    return 1;
}

static void *serve(void *arg)
{
    int fd = (int)(intptr_t)arg, one = 1;
    size_t cap = 1 << 18, have = 0, sent;
    char *buf = malloc(cap);
    ssize_t n;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    while (buf != NULL && eat_request(fd, buf, cap, &have)) {
        if (delay_ms > 0)
            usleep(delay_ms * 1000);
        for (sent = 0; sent < reply.n; sent += (size_t)n) {
            n = write(fd, reply.p + sent, reply.n - sent);
            if (n <= 0)
                break;
        }
        if (sent < reply.n)
            break;
    }
    free(buf);
    close(fd);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(in);
    pthread_attr_t attr;
    int fd = socket(AF_INET, SOCK_STREAM, 0), c;

    if (argc < 4) {
        fprintf(stderr, "usage: replay FORM ROWS DIM [DELAY_MS]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    make_reply(argv[1], strtoul(argv[2], NULL, 10), strtoul(argv[3], NULL, 10));
    delay_ms = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 10) : 0;
    check(bind(fd, (struct sockaddr *)&in, sizeof(in)) == 0 && listen(fd, 4096) == 0, "listen");
    getsockname(fd, (struct sockaddr *)&in, &len);
    printf("%u\n", ntohs(in.sin_port));
    fflush(stdout);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 1 << 16);
    for (c = accept(fd, NULL, NULL); c >= 0; c = accept(fd, NULL, NULL)) {
        pthread_t thread;

        if (pthread_create(&thread, &attr, serve, (void *)(intptr_t)c) != 0)
            close(c);
    }
    return 0;
}
