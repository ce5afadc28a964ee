/*
 * poll_loop.c - embeddings inside a program that has a poll() loop, or any other: the engine has a
 * thread of its own, and one descriptor says when something is finished. Lines of standard input are
 * texts; those that come while the upstream is busy share requests.
 *
 *     moonpool mock --port 8089 &
 *     make && seq 1 100 | ./poll_loop '{"base_url": "http://127.0.0.1:8089", "batch": {"slots": 2}}'
 */
#include <moonpool.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct mp_vectors openai = {.list = "data", .vector = "embedding", .index = "index"};

struct input {
    char text[65536];
    size_t n;
    int ended;
    unsigned long lines;
};

static int submit(mp_bridge *bridge, const char *text, size_t n, unsigned long line)
{
    struct mp_request q = MP_INIT(struct mp_request);
    struct mp_gather gather = MP_INIT(struct mp_gather);
    struct mp_timeouts timeouts = {.total = 30};
    struct mp_str row = {text, n};
    q.path = "/v1/embeddings";
    q.mode = MP_BODY_JOIN;
    q.rows = &row;
    q.nrows = 1;
    q.prefix = (struct mp_str){"{\"model\":\"m\",\"input\":[", 22};
    q.suffix = (struct mp_str){"]}", 2};
    q.vectors = &openai;
    q.timeouts = &timeouts;
    q.arg = (void *)line;
    return mp_bridge_submit(bridge, &q, &gather, NULL);
}

/* Submits the whole lines that are there; at the bridge's bound the rest waits for completions. */
static int take_lines(mp_bridge *bridge, struct input *in)
{
    char *at = in->text;
    char *end = in->text + in->n;
    int rc = 0;
    while (at < end) {
        char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((newline != NULL ? newline : end) - at);
        int whole_buffer = at == in->text && in->n == sizeof(in->text);
        if (newline == NULL && !in->ended && !whole_buffer)
            break; /* the rest of the line is still to come */
        rc = submit(bridge, at, n, in->lines + 1);
        if (rc != 0)
            break;
        in->lines++;
        at += n + (newline != NULL);
    }
    in->n = (size_t)(end - at);
    memmove(in->text, at, in->n);
    return rc == MP_EAGAIN ? 0 : rc;
}

static int read_input(struct input *in)
{
    ssize_t n = read(STDIN_FILENO, in->text + in->n, sizeof(in->text) - in->n);
    if (n > 0)
        in->n += (size_t)n;
    in->ended = n <= 0;
    return n < 0;
}

static void print(const struct mp_completion *c)
{
    const struct mp_result *r = c->result;
    const struct mp_exchange *x = r != NULL && r->nexchanges > 0 ? &r->exchanges[0] : NULL;
    if (r != NULL && r->rows_ok > 0)
        printf("line %lu: %u numbers, the first %.6f\n", (unsigned long)c->arg, r->dimensions,
               mp_matrix_data(r->matrix)[r->first_row * r->dimensions]);
    else
        printf("line %lu: %s\n", (unsigned long)c->arg,
               x != NULL ? mp_exchange_message(x)
                         : mp_kind_name(r != NULL ? r->kind : MP_KIND_CLOSED));
}

static unsigned long take_completions(mp_bridge *bridge)
{
    struct mp_completion c[64];
    int n = mp_bridge_poll(bridge, c, 64); /* what is left makes the descriptor readable again */
    for (int i = 0; i < n; i++) {
        print(&c[i]);
        mp_result_free(c[i].result);
    }
    return n > 0 ? (unsigned long)n : 0;
}

int main(int argc, char **argv)
{
    static struct input in;
    mp_bridge *bridge = NULL;
    unsigned long done = 0;
    int rc = argc == 2 ? mp_bridge_start_json(argv[1], strlen(argv[1]), &bridge) : MP_EINVAL;
    if (rc != 0) {
        fprintf(stderr, "usage: poll_loop JSON < TEXTS\n%s\n", mp_last_error());
        return 2;
    }
    while (rc == 0 && (!in.ended || in.n > 0 || done < in.lines)) {
        int room = !in.ended && in.n < sizeof(in.text);
        struct pollfd fds[2] = {{.fd = mp_bridge_fd(bridge), .events = POLLIN},
                                {.fd = room ? STDIN_FILENO : -1, .events = POLLIN}};
        if (poll(fds, 2, -1) < 0 || (fds[1].revents != 0 && read_input(&in) != 0))
            break;
        if (fds[0].revents != 0)
            done += take_completions(bridge);
        rc = take_lines(bridge, &in);
    }
    if (rc != 0)
        fprintf(stderr, "line %lu: %s\n", in.lines + 1, mp_last_error());
    mp_bridge_close(bridge);
    return rc != 0 || done < in.lines;
}
