/* base_mailbox.c - letters from many threads, in order, and none lost when the box closes. */
#include "base/mailbox.h"
#include "base/thread.h"
#include "base_util.h"

#include <signal.h>
#include <stdatomic.h>

#define THREADS 4
#define LETTERS 5000

struct letter {
    struct mp__link link;
    int from, n;
};

struct rig {
    uv_loop_t loop;
    struct mp__mailbox *box;
    int last[THREADS]; /* number of the last letter of each */
    int opened, calls, enough, closed;
    _Atomic int refused;
};

static void open_box(void *arg, struct mp__link *letters)
{
    struct rig *r = arg;

    r->calls++;
    while (!mp__list_empty(letters)) {
        struct letter *l = MP__ENTRY(mp__list_shift(letters), struct letter, link);

        assert_int_equal(l->n, r->last[l->from] + 1);
        r->last[l->from] = l->n;
        r->opened++;
        free(l);
    }
    if (r->opened >= r->enough)
        uv_stop(&r->loop);
}

static void on_closed(void *arg)
{
    ((struct rig *)arg)->closed++;
}

static void start(struct rig *r, int enough)
{
    memset(r, 0, sizeof(*r));
    r->enough = enough;
    assert_int_equal(uv_loop_init(&r->loop), 0);
    r->box = mp__mailbox_new(&r->loop, open_box, r);
    assert_non_null(r->box);
}

/* How many letters were in the box. */
static int finish(struct rig *r)
{
    struct mp__link left;
    int n = 0;

    mp__mailbox_close(r->box, &left, on_closed, r);
    for (; !mp__list_empty(&left); n++)
        free(MP__ENTRY(mp__list_shift(&left), struct letter, link));
    assert_int_equal(r->closed, 0);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    assert_int_equal(r->closed, 1);
    return n;
}

static struct letter *letter(int from, int n)
{
    struct letter *l = calloc(1, sizeof(*l));

    l->from = from;
    l->n = n;
    return l;
}

struct sender {
    struct rig *rig;
    struct mp__mailbox *box; /* a reference of its own */
    int from;
    pthread_t id;
};

static void *send_all(void *arg)
{
    struct sender *s = arg;
    int i;

    for (i = 1; i <= LETTERS; i++) {
        struct letter *l = letter(s->from, i);

        if (!mp__mailbox_post(s->box, &l->link)) {
            free(l);
            s->rig->refused++;
        }
    }
    mp__mailbox_unref(s->box);
    return NULL;
}

static void send_from_threads(struct rig *r, struct sender *senders)
{
    int i;

    for (i = 0; i < THREADS; i++) {
        senders[i] = (struct sender){.rig = r, .from = i, .box = mp__mailbox_ref(r->box)};
        assert_int_equal(mp__thread_start(&senders[i].id, send_all, &senders[i]), 0);
    }
}

static void join(struct sender *senders)
{
    int i;

    for (i = 0; i < THREADS; i++)
        pthread_join(senders[i].id, NULL);
}

/* The box does not keep the loop alive: something else must. */
static void keep_alive(uv_timer_t *timer)
{
    (void)timer;
}

static void run_with_timer(struct rig *r)
{
    uv_timer_t timer;

    uv_timer_init(&r->loop, &timer);
    uv_timer_start(&timer, keep_alive, 60000, 60000);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&r->loop, UV_RUN_NOWAIT);
}

static void every_letter_comes_once_and_in_order(void **state)
{
    struct rig r;
    struct sender senders[THREADS];

    (void)state;
    start(&r, THREADS * LETTERS);
    send_from_threads(&r, senders);
    run_with_timer(&r);
    join(senders);
    assert_int_equal(r.opened, THREADS * LETTERS);
    assert_int_equal(finish(&r), 0);
    assert_int_equal(uv_loop_close(&r.loop), 0);
}

/* Threads that outlive the box keep their letters; those in it come back to whoever closes it. */
static void none_is_lost_when_the_box_closes(void **state)
{
    struct rig r;
    struct sender senders[THREADS];
    int left;

    (void)state;
    start(&r, 1);
    send_from_threads(&r, senders);
    run_with_timer(&r);
    left = finish(&r);
    assert_int_equal(uv_loop_close(&r.loop), 0);
    join(senders);
    assert_int_equal(r.opened + left + r.refused, THREADS * LETTERS);
}

static void it_does_not_keep_the_loop_alive(void **state)
{
    struct rig r;

    (void)state;
    start(&r, 1);
    assert_int_equal(uv_run(&r.loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(finish(&r), 0);
    assert_int_equal(uv_loop_close(&r.loop), 0);
}

static struct mp__mailbox *rung;

static void on_signal(int sig)
{
    (void)sig;
    mp__mailbox_ring(rung);
}

static void a_signal_handler_may_ring(void **state)
{
    struct rig r;

    (void)state;
    start(&r, 0);
    rung = r.box;
    signal(SIGUSR1, on_signal);
    raise(SIGUSR1);
    raise(SIGUSR1);
    run_with_timer(&r);
    assert_int_equal(r.calls, 1);
    assert_int_equal(r.opened, 0);
    signal(SIGUSR1, SIG_DFL);
    finish(&r);
    assert_int_equal(uv_loop_close(&r.loop), 0);
}

static void *report_mask(void *arg)
{
    sigset_t now;

    pthread_sigmask(SIG_SETMASK, NULL, &now);
    *(int *)arg = sigismember(&now, SIGINT) && sigismember(&now, SIGTERM);
    return NULL;
}

static void a_thread_takes_no_signal(void **state)
{
    pthread_t id;
    sigset_t now;
    int blocked = 0;

    (void)state;
    assert_int_equal(mp__thread_start(&id, report_mask, &blocked), 0);
    pthread_join(id, NULL);
    assert_true(blocked);
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    assert_false(sigismember(&now, SIGINT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_letter_comes_once_and_in_order),
        cmocka_unit_test(none_is_lost_when_the_box_closes),
        cmocka_unit_test(it_does_not_keep_the_loop_alive),
        cmocka_unit_test(a_signal_handler_may_ring),
        cmocka_unit_test(a_thread_takes_no_signal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
