/*
 * engine_names.c - name look-ups that hang, fail and change. The program's own getaddrinfo stands
 * before the C library's.
 */
#include "engine_rig.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int hanging; /* look-ups of hang.test block while set */
static int entered, left, lookups;
static char address[2][INET_ADDRSTRLEN];
static int addresses;

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **out)
{
    (void)service;
    (void)hints;
    pthread_mutex_lock(&lock);
    lookups++;
    if (strcmp(host, "hang.test") == 0) {
        entered++;
        pthread_cond_broadcast(&changed);
        while (hanging)
            pthread_cond_wait(&changed, &lock);
        left++;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    if (strcmp(host, "none.test") == 0)
        return EAI_NONAME;
    struct addrinfo *first = NULL;
    for (int i = addresses - 1; i >= 0; i--) {
        struct addrinfo *a = calloc(1, sizeof(*a) + sizeof(struct sockaddr_in));
        struct sockaddr_in *in = (struct sockaddr_in *)(a + 1);
        in->sin_family = AF_INET;
        inet_pton(AF_INET, address[i], &in->sin_addr);
        a->ai_family = AF_INET;
        a->ai_socktype = SOCK_STREAM;
        a->ai_addr = (struct sockaddr *)in;
        a->ai_addrlen = sizeof(*in);
        a->ai_next = first;
        first = a;
    }
    *out = first;
    return 0;
}

void freeaddrinfo(struct addrinfo *list)
{
    struct addrinfo *next = NULL;
    for (; list != NULL; list = next) {
        next = list->ai_next;
        free(list);
    }
}

static void use(const char *a, const char *b)
{
    addresses = b != NULL ? 2 : 1;
    snprintf(address[0], sizeof(address[0]), "%s", a);
    if (b != NULL)
        snprintf(address[1], sizeof(address[1]), "%s", b);
}

static const struct mp_str body = {"{}", 2};

static void open_for(struct rig *rig, const char *host, double connect)
{
    char url[128];
    rig_open(rig);
    snprintf(url, sizeof(url), "http://%s:%d", host, mp__http_server_port(rig->server));
    struct mp_endpoint_config ep = {.base_url = url};
    struct mp_client_config c = MP_INIT(struct mp_client_config);
    struct mp_policy policy = {0};
    mp_policy_init(&policy, MP_PRESET_NONE);
    c.endpoints = &ep;
    c.nendpoints = 1;
    c.policy = &policy;
    c.timeouts.connect = connect;
    rig_client(rig, &c);
}

static void test_resolves_once(void **state)
{
    struct rig rig;
    (void)state;
    use("127.0.0.1", NULL);
    lookups = 0;
    open_for(&rig, "good.test", 0);
    for (int i = 0; i < 100; i++) {
        struct mp_request q = rig_request(&rig, &body, 1);
        rig_submit(&rig, &q);
    }
    rig_run(&rig, 100);
    assert_int_equal(rig.last->rows_ok, 1);
    assert_int_equal(lookups, 1);
    rig_close(&rig);
}

static void test_second_address_serves(void **state)
{
    struct rig rig;
    (void)state;
    use("127.0.0.2", "127.0.0.1"); /* nobody listens on the first */
    open_for(&rig, "two.test", 0);
    struct mp_request q = rig_request(&rig, &body, 1);
    rig_submit(&rig, &q);
    rig_run(&rig, 1);
    assert_int_equal(rig.last->rows_ok, 1);
    rig_close(&rig);
}

static unsigned second_served;

static void serve_second(struct mp__http_request *req, void *arg)
{
    (void)arg;
    second_served++;
    rig_reply(req, 200, "{}");
}

/* Two servers on one port of two addresses: connections spread over both. */
static void test_spreads_over_all_addresses(void **state)
{
    struct rig rig;
    struct mp__http_server *second = NULL;
    struct mp__http_config hc = {.on_request = serve_second};
    char where[32];
    int closed = 0;
    (void)state;
    use("127.0.0.1", "127.0.0.2");
    second_served = 0;
    open_for(&rig, "spread.test", 0);
    snprintf(where, sizeof(where), "127.0.0.2:%d", mp__http_server_port(rig.server));
    assert_int_equal(mp__http_server_new(&rig.loop, &hc, &second), 0);
    assert_int_equal(mp__http_server_listen(second, where), 0);
    for (int i = 0; i < 200; i++) {
        struct mp_request q = rig_request(&rig, &body, 1);
        rig_submit(&rig, &q);
    }
    rig_run(&rig, 200);
    print_message("%u and %u of 200\n", rig.requests, second_served);
    assert_int_equal(rig.requests + second_served, 200);
    assert_true(rig.requests >= 20 && second_served >= 20);
    mp__http_server_close(second, rig_closed, &closed);
    while (!closed)
        uv_run(&rig.loop, UV_RUN_ONCE);
    rig_close(&rig);
}

static void test_unknown_name(void **state)
{
    struct rig rig;
    (void)state;
    open_for(&rig, "none.test", 0);
    for (int i = 0; i < 50; i++) {
        struct mp_request q = rig_request(&rig, &body, 1);
        rig_submit(&rig, &q);
    }
    rig_run(&rig, 50);
    const struct mp_exchange *x = &rig.last->exchanges[0];
    assert_int_equal(x->kind, MP_KIND_CONNECT);
    assert_non_null(strstr(mp_exchange_message(x), "could not resolve host none.test"));
    assert_int_equal(x->attempts, 1); /* a name that does not exist is not asked for again */
    assert_false(x->retryable);
    rig_close(&rig);
}

static double ms_since(const struct timespec *from)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - from->tv_sec) * 1e3 + (double)(now.tv_nsec - from->tv_nsec) / 1e6;
}

static void wait_entered(struct rig *rig)
{
    pthread_mutex_lock(&lock);
    while (entered == 0) {
        pthread_mutex_unlock(&lock);
        uv_run(&rig->loop, UV_RUN_NOWAIT);
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
}

static void release(void)
{
    pthread_mutex_lock(&lock);
    hanging = 0;
    pthread_cond_broadcast(&changed);
    while (left < entered)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

/* Cancel, completion and the closing of everything while the look-up hangs: none of them may wait
 * for it. (The bound is the promise of the interface, with room for a busy machine.) */
static void test_cancel_while_it_hangs(void **state)
{
    struct rig rig;
    uint64_t tickets[30];
    struct timespec start;
    (void)state;
    hanging = 1;
    entered = left = 0;
    open_for(&rig, "hang.test", 0);
    for (int i = 0; i < 30; i++) {
        struct mp_request q = rig_request(&rig, &body, 1);
        tickets[i] = rig_submit(&rig, &q);
    }
    wait_entered(&rig);
    assert_int_equal(entered, 1);
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < 30; i++)
        mp_cancel(rig.engine, tickets[i]);
    rig_run(&rig, 30);
    assert_int_equal(rig.last->kind, MP_KIND_CANCELLED);
    rig_close(&rig);
    double took = ms_since(&start);
    print_message("cancelled and closed in %.1f ms\n", took);
    assert_true(took < 1000);
    release();
}

static void test_connect_timeout_while_it_hangs(void **state)
{
    struct rig rig;
    (void)state;
    hanging = 1;
    entered = left = 0;
    open_for(&rig, "hang.test", 0.05);
    struct mp_request q = rig_request(&rig, &body, 1);
    rig_submit(&rig, &q);
    rig_run(&rig, 1);
    assert_int_equal(rig.last->exchanges[0].kind, MP_KIND_CONNECT_TIMEOUT);
    rig_close(&rig);
    release();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resolves_once),
        cmocka_unit_test(test_second_address_serves),
        cmocka_unit_test(test_spreads_over_all_addresses),
        cmocka_unit_test(test_unknown_name),
        cmocka_unit_test(test_cancel_while_it_hangs),
        cmocka_unit_test(test_connect_timeout_while_it_hangs),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
