/* base_list.c - the list: order, removal in any state, and moving a whole one. */
#include "base/list.h"
#include "base_util.h"

struct item {
    int n;
    struct mp__link link;
};

/* The items' numbers in order, walked both ways; they must agree. */
static void assert_order(struct mp__link *head, const char *want)
{
    char forth[64] = "";
    char back[64] = "";
    struct mp__link *l;
    size_t n;

    for (l = head->next; l != head; l = l->next) {
        n = strlen(forth);
        snprintf(forth + n, sizeof(forth) - n, "%d", MP__ENTRY(l, struct item, link)->n);
    }
    assert_string_equal(forth, want);
    n = strlen(want);
    for (l = head->prev; l != head && n > 0; l = l->prev)
        back[--n] = (char)('0' + MP__ENTRY(l, struct item, link)->n);
    assert_int_equal(n, 0);
    assert_string_equal(back, want);
}

static void order_is_kept(void **state)
{
    struct mp__link head;
    struct item t[5] = {{.n = 0}, {.n = 1}, {.n = 2}, {.n = 3}, {.n = 4}};

    (void)state;
    mp__list_init(&head);
    assert_true(mp__list_empty(&head));
    assert_null(mp__list_shift(&head));
    mp__list_push(&head, &t[1].link);
    mp__list_push(&head, &t[2].link);
    mp__list_unshift(&head, &t[0].link);
    mp__list_insert(&t[2].link, &t[4].link);
    assert_order(&head, "0142");
    assert_ptr_equal(mp__list_shift(&head), &t[0].link);
    assert_false(mp__linked(&t[0].link));
    mp__list_remove(&t[4].link);
    assert_order(&head, "12");
    mp__list_push(&head, &t[4].link);
    assert_order(&head, "124");
}

static void a_link_on_no_list_may_be_removed(void **state)
{
    struct mp__link head;
    struct item t = {.n = 1};

    (void)state;
    mp__list_init(&head);
    mp__list_remove(&t.link);
    assert_false(mp__linked(&t.link));
    mp__list_push(&head, &t.link);
    assert_true(mp__linked(&t.link));
    mp__list_remove(&t.link);
    mp__list_remove(&t.link);
    assert_false(mp__linked(&t.link));
    assert_true(mp__list_empty(&head));
}

static void a_whole_list_moves_to_the_end_of_another(void **state)
{
    struct mp__link a, b;
    struct item t[4] = {{.n = 0}, {.n = 1}, {.n = 2}, {.n = 3}};

    (void)state;
    mp__list_init(&a);
    mp__list_init(&b);
    mp__list_move(&a, &b);
    assert_true(mp__list_empty(&a));
    assert_true(mp__list_empty(&b));
    mp__list_push(&a, &t[0].link);
    mp__list_push(&a, &t[1].link);
    mp__list_move(&a, &b);
    assert_true(mp__list_empty(&a));
    assert_order(&b, "01");
    mp__list_push(&a, &t[2].link);
    mp__list_move(&a, &b);
    assert_order(&b, "012");
    mp__list_move(&a, &b);
    assert_order(&b, "012");
    mp__list_push(&a, &t[3].link);
    assert_order(&a, "3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_is_kept),
        cmocka_unit_test(a_link_on_no_list_may_be_removed),
        cmocka_unit_test(a_whole_list_moves_to_the_end_of_another),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
