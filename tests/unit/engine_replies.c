/*
 * engine_replies.c - replies that break off or break the rules of HTTP, byte for byte: which kind of
 * fault each is, and how often it is tried.
 */
#include "engine_rig.h"

#include <zlib.h>
#include <zstd.h>

/* ---- a server that says the same to everybody, and goes ---- */

static struct {
    uv_tcp_t listener;
    const char *bytes;
    size_t n;
    unsigned asked;
    int closed;
} canned;

struct visitor {
    uv_tcp_t tcp;
    uv_write_t write;
    uv_shutdown_t shutdown;
    char head[4096];
    size_t n;
    int told;
};

static void on_gone(uv_handle_t *h)
{
    free(h->data);
}

static void on_shut(uv_shutdown_t *r, int status)
{
    (void)r;
    (void)status;
}

static void on_told(uv_write_t *w, int status)
{
    struct visitor *v = w->handle->data;
    if (status == 0)
        uv_shutdown(&v->shutdown, w->handle, on_shut);
}

static void on_alloc(uv_handle_t *h, size_t hint, uv_buf_t *b)
{
    struct visitor *v = h->data;
    (void)hint;
    *b = uv_buf_init(v->head + v->n, (unsigned)(sizeof(v->head) - v->n));
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    struct visitor *v = s->data;
    (void)b;
    if (n < 0) {
        uv_close((uv_handle_t *)s, on_gone);
        return;
    }
    v->n += (size_t)n;
    if (v->told || memmem(v->head, v->n, "\r\n\r\n", 4) == NULL)
        return;
    v->told = 1;
    canned.asked++;
    uv_buf_t out = uv_buf_init((char *)(uintptr_t)canned.bytes, (unsigned)canned.n);
    uv_write(&v->write, s, &out, 1, on_told);
}

static void on_visitor(uv_stream_t *listener, int status)
{
    struct visitor *v = calloc(1, sizeof(*v));
    assert_int_equal(status, 0);
    uv_tcp_init(listener->loop, &v->tcp);
    v->tcp.data = v;
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&v->tcp), 0);
    uv_read_start((uv_stream_t *)&v->tcp, on_alloc, on_read);
}

static struct rig rig;

static void open_canned(void)
{
    struct sockaddr_in at;
    int len = sizeof(at);
    char url[64];
    memset(&canned, 0, sizeof(canned));
    rig_open(&rig);
    uv_tcp_init(&rig.loop, &canned.listener);
    uv_ip4_addr("127.0.0.1", 0, &at);
    assert_int_equal(uv_tcp_bind(&canned.listener, (struct sockaddr *)&at, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&canned.listener, 16, on_visitor), 0);
    uv_tcp_getsockname(&canned.listener, (struct sockaddr *)&at, &len);
    snprintf(url, sizeof(url), "http://127.0.0.1:%u", ntohs(at.sin_port));
    struct mp_endpoint_config ep = {.base_url = url};
    struct mp_client_config cc = MP_INIT(struct mp_client_config);
    struct mp_policy p;
    mp_policy_init(&p, MP_PRESET_JOB);
    p.retry.max_attempts = 3;
    p.retry.base = p.retry.throttle_base = 0.001;
    p.retry.cap = 0.002;
    cc.policy = &p;
    cc.endpoints = &ep;
    cc.nendpoints = 1;
    rig_client(&rig, &cc);
}

static void close_canned(void)
{
    uv_close((uv_handle_t *)&canned.listener, NULL);
    rig_close(&rig);
}

/* Asks and gets these bytes. */
static const struct mp_exchange *ask(const void *bytes, size_t n)
{
    static const struct mp_str none = {NULL, 0};
    struct mp_request q = rig_request(&rig, &none, 1);
    q.method = "GET";
    canned.bytes = bytes;
    canned.n = n;
    canned.asked = 0;
    rig_submit(&rig, &q);
    rig_run(&rig, rig.done + 1);
    return &rig.last->exchanges[0];
}

static void check(const char *name, const void *bytes, size_t n, int kind, unsigned asked,
                  const char *words)
{
    const struct mp_exchange *x = ask(bytes, n);
    if ((int)x->kind != kind || canned.asked != asked)
        fail_msg("%s: %s in %u tries, wanted %s in %u: %s", name, mp_kind_name(x->kind),
                 canned.asked, mp_kind_name((enum mp_kind)kind), asked, mp_exchange_message(x));
    if (strstr(mp_exchange_message(x), words) == NULL)
        fail_msg("%s: '%s' lacks '%s'", name, mp_exchange_message(x), words);
}

/* ---- what is said without compression ---- */

#define OK    "HTTP/1.1 200 OK\r\n"
#define PLAIN OK "Content-Type: text/plain\r\n"
#define CHUNK PLAIN "Transfer-Encoding: chunked\r\n\r\n"

static const struct {
    const char *text;
    int kind;
    unsigned asked;
    const char *words;
} plain[] = {
    /* broken off: as often as the policy says */
    {"", MP_KIND_CONNECT, 3, "Empty reply"},
    {"HTTP/1.1 20", MP_KIND_CONNECT, 3, ""},
    {OK, MP_KIND_CONNECT, 3, "inside the head"},
    {OK "Content-Ty", MP_KIND_CONNECT, 3, "inside the head"},
    {PLAIN, MP_KIND_CONNECT, 3, "inside the head"},
    {"HTTP/1.1 100 Continue\r\n\r\n", MP_KIND_CONNECT, 3, ""},
    {"HTTP/1.1 100 Continue\r\n\r\n" OK "A: b\r\n", MP_KIND_CONNECT, 3, "inside the head"},
    {PLAIN "Content-Length: 9\r\n\r\nabc", MP_KIND_CONNECT, 3, ""},
    {CHUNK "10\r\nabc", MP_KIND_CONNECT, 3, ""},
    /* against the rules: once more */
    {CHUNK "zz\r\nabc\r\n0\r\n\r\n", MP_KIND_DECODE, 2, "chunk"},
    {CHUNK "-3\r\nabc\r\n0\r\n\r\n", MP_KIND_DECODE, 2, "chunk"},
    {CHUNK "fffffffffffffffffff\r\nabc\r\n0\r\n\r\n", MP_KIND_DECODE, 2, "chunk"},
    {CHUNK "3\r\nabcXX0\r\n\r\n", MP_KIND_DECODE, 2, "chunk"},
    {PLAIN "Transfer-Encoding: foo\r\n\r\nabc", MP_KIND_DECODE, 2, "transfer coding"},
    {PLAIN "Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde", MP_KIND_DECODE, 2, "two lengths"},
    {PLAIN "Content-Length: x\r\n\r\nabc", MP_KIND_DECODE, 2, ""},
    {PLAIN "Content-Encoding: br\r\nContent-Length: 3\r\n\r\nabc", MP_KIND_DECODE, 2,
     "content coding"},
    {PLAIN "Content-Encoding: gzip, gzip\r\nContent-Length: 3\r\n\r\nabc", MP_KIND_DECODE, 2,
     "content coding"},
    {"garbage\r\n\r\n", MP_KIND_DECODE, 2, ""},
    /* sound */
    {"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" PLAIN "Content-Length: 2\r\n\r\nok", MP_KIND_NONE,
     1, ""},
    {PLAIN "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", MP_KIND_NONE, 1, ""},
    {PLAIN "Content-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", MP_KIND_NONE, 1, ""},
    {PLAIN "Content-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", MP_KIND_NONE, 1, ""},
    {"HTTP/1.1 204 No Content\r\nContent-Encoding: gzip\r\n\r\n", MP_KIND_NONE, 1, ""},
    {PLAIN "\r\nuntil the end", MP_KIND_NONE, 1, ""},
    {CHUNK "3\r\nabc\r\n0\r\n\r\n", MP_KIND_NONE, 1, ""},
};

static void test_plain(void **state)
{
    (void)state;
    open_canned();
    for (size_t i = 0; i < sizeof(plain) / sizeof(*plain); i++)
        check(plain[i].text, plain[i].text, strlen(plain[i].text), plain[i].kind, plain[i].asked,
              plain[i].words);
    close_canned();
}

/* ---- heads without end ---- */

static char *big;
static size_t nbig;

static void repeat(const char *before, const char *what, size_t times, const char *after)
{
    size_t a = strlen(before), b = strlen(what), c = strlen(after);
    nbig = a + b * times + c;
    big = malloc(nbig);
    assert_non_null(big);
    memcpy(big, before, a);
    for (size_t i = 0; i < times; i++)
        memcpy(big + a + i * b, what, b);
    memcpy(big + a + b * times, after, c);
}

static void test_heads_without_end(void **state)
{
    static const struct {
        const char *before, *what;
        size_t times;
        const char *after;
    } heads[] = {
        {"", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 20000, ""},
        {OK, "X: y\r\n", 5000, "\r\n"},
        {OK "X: ", "yyyyyyyyyy", 40000, "\r\n\r\n"},
    };
    (void)state;
    open_canned();
    for (size_t i = 0; i < sizeof(heads) / sizeof(*heads); i++) {
        repeat(heads[i].before, heads[i].what, heads[i].times, heads[i].after);
        check(heads[i].what, big, nbig, MP_KIND_TOO_LARGE, 1, "");
        free(big);
    }
    close_canned();
}

/* ---- compressed ---- */

static unsigned char packed[8192];
static char text[4000];

/* In zlib's framing (bits of 15), gzip's (31) or none (-15). */
static size_t squeeze(int bits)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)text;
    z.avail_in = sizeof(text);
    z.next_out = packed;
    z.avail_out = sizeof(packed);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return z.total_out;
}

static size_t wrap(char *out, const char *coding, const void *body, size_t n)
{
    static const char form[] = PLAIN "Content-Encoding: %s\r\nContent-Length: %zu\r\n\r\n";
    size_t head = (size_t)snprintf(out, sizeof(form) + 64, form, coding, n);
    memcpy(out + head, body, n);
    return head + n;
}

static void check_coding(const char *coding, size_t n)
{
    static char out[20000], twice[16384];
    const struct mp_exchange *x;
    x = ask(out, wrap(out, coding, packed, n));
    assert_int_equal(x->kind, MP_KIND_NONE);
    assert_int_equal(x->body_len, sizeof(text));
    assert_memory_equal(mp_exchange_body(x), text, sizeof(text));
    for (size_t cut = 1; cut < n; cut += 1 + n / 40)
        check(coding, out, wrap(out, coding, packed, cut), MP_KIND_DECODE, 2, "end too early");
    memcpy(twice, packed, n);
    memcpy(twice + n, "junkjunk", 8);
    check(coding, out, wrap(out, coding, twice, n + 8), MP_KIND_DECODE, 2, "bytes behind its end");
    if (strcmp(coding, "deflate") == 0)
        return;
    memcpy(twice + n, packed, n); /* another member */
    x = ask(out, wrap(out, coding, twice, 2 * n));
    assert_int_equal(x->kind, MP_KIND_NONE);
    assert_int_equal(x->body_len, 2 * sizeof(text));
    memset(twice + n / 2, 0xFF, 20);
    check(coding, out, wrap(out, coding, twice, n), MP_KIND_DECODE, 2, coding);
}

static void test_codings(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)('a' + i * i % 26);
    open_canned();
    check_coding("gzip", squeeze(31));
    check_coding("deflate", squeeze(15));
    check_coding("deflate", squeeze(-15));
    check_coding("zstd", ZSTD_compress(packed, sizeof(packed), text, sizeof(text), 3));
    close_canned();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_heads_without_end),
        cmocka_unit_test(test_codings),
    };
    return cmocka_run_group_tests_name("engine_replies", tests, NULL, NULL);
}
