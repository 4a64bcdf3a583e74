/* Links that are slow, long and lossy, in user space: a switch between one TAP device in each network namespace.
 *
 *     relay SEED [NAMESPACE UP_BPS DOWN_BPS DELAY_US JITTER_US LOSS_PPM]...
 *
 * A frame waits in its sender's line up (rate, then delay, jitter and loss), then in its receiver's line down (rate). A
 * rate of 0 is none. A line that would take longer than QUEUE_NS to empty drops what comes. Frames pass only between
 * peers on one side; at first all are. Which peer an address belongs to stands in its last two bytes. Says "ready" when
 * the devices are there; an empty line on stdin asks for a line of counts; a line
 *
 *     INDEX SIDE UP_BPS DOWN_BPS DELAY_US JITTER_US LOSS_PPM
 *
 * changes a peer's link from now on, and is answered by "set"; the end of stdin ends the relay, and the devices with it.
 * `links.py` starts it and sets the devices up.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define QUEUE_NS 100000000LL /* as a home router's buffer: 100 ms at the line's rate */
#define PAUSE_NS 200000LL    /* frames are gathered for so long: a fifth of the CPU time of one wake-up for each */
#define FRAME_BYTES 1600     /* an MTU of 1500, and the header */
#define BURST 64             /* frames read from one device before the next has its turn */
#define MAX_PEERS 128
#define EVERYBODY (-1)
#define WORDS 6 /* of a peer: namespace, or side; rates, delay, jitter, loss */

struct frame {
    struct frame *next;
    int64_t due_ns; /* when it leaves its line */
    int to, bytes;
    unsigned char data[FRAME_BYTES];
};

struct line {
    double ns_per_byte;
    int64_t delay_ns, jitter_ns, free_ns; /* free_ns: when the last bit in the line will have been sent */
    int64_t last_ns;                      /* when the last frame leaves: jitter lets none overtake another */
    uint64_t random;
    struct frame *first, *last;
    uint64_t frames, bytes, dropped;
};

struct peer {
    int tap, side;
    uint64_t random, loss_limit, lost;
    struct line up, down;
};

static struct peer peers[MAX_PEERS];
static int count;
static struct frame *spare;

static void fail(const char *what) {
    fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* splitmix64: each peer's losses follow from the seed and the order of its frames */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = (*state += 0x9E3779B97F4A7C15ULL);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

static struct frame *take_frame(void) {
    struct frame *frame = spare;
    if (frame)
        spare = frame->next;
    else if (!(frame = malloc(sizeof *frame)))
        fail("memory");
    return frame;
}

static void give_back(struct frame *frame) {
    frame->next = spare;
    spare = frame;
}

static void enqueue(struct line *line, struct frame *frame, int64_t at_ns) {
    int64_t start_ns = line->free_ns > at_ns ? line->free_ns : at_ns;
    if (start_ns - at_ns > QUEUE_NS) {
        line->dropped++;
        give_back(frame);
        return;
    }
    line->free_ns = start_ns + (int64_t)(frame->bytes * line->ns_per_byte);
    frame->due_ns = line->free_ns + line->delay_ns;
    if (line->jitter_ns)
        frame->due_ns += (int64_t)(next_random(&line->random) % (uint64_t)line->jitter_ns);
    if (frame->due_ns < line->last_ns)
        frame->due_ns = line->last_ns;
    line->last_ns = frame->due_ns;
    frame->next = NULL;
    if (line->first)
        line->last->next = frame;
    else
        line->first = frame;
    line->last = frame;
}

static struct frame *dequeue(struct line *line) {
    struct frame *frame = line->first;
    line->first = frame->next;
    line->frames++;
    line->bytes += frame->bytes;
    return frame;
}

/* Pass a frame that has left its sender's line on to its receiver's, or to everybody's but the sender's own. */
static void forward(struct frame *frame, int from) {
    for (int to = 0; frame->to == EVERYBODY && to < count; to++)
        if (to != from && peers[to].side == peers[from].side) {
            struct frame *copy = take_frame();
            memcpy(copy, frame, sizeof *copy);
            enqueue(&peers[to].down, copy, frame->due_ns);
        }
    if (frame->to >= 0 && frame->to < count && peers[frame->to].side == peers[from].side)
        enqueue(&peers[frame->to].down, frame, frame->due_ns);
    else
        give_back(frame);
}

static void read_from(struct peer *peer) {
    for (int i = 0; i < BURST; i++) {
        struct frame *frame = take_frame();
        frame->bytes = read(peer->tap, frame->data, FRAME_BYTES);
        if (frame->bytes < 14) {
            give_back(frame);
            return;
        }
        frame->to = frame->data[0] & 1 ? EVERYBODY : (frame->data[4] << 8 | frame->data[5]) - 1;
        enqueue(&peer->up, frame, now_ns());
    }
}

/* Move what is due, in the order of time, whatever line it is in; return when the next frame will be due, or -1. */
static int64_t move(void) {
    for (;;) {
        struct line *line = NULL;
        int at = 0;
        for (int i = 0; i < count; i++)
            for (int up = 0; up < 2; up++) {
                struct line *other = up ? &peers[i].up : &peers[i].down;
                if (other->first && (!line || other->first->due_ns < line->first->due_ns))
                    line = other, at = i;
            }
        if (!line || line->first->due_ns > now_ns())
            return line ? line->first->due_ns : -1;
        struct frame *frame = dequeue(line);
        if (line == &peers[at].down) {
            if (write(peers[at].tap, frame->data, frame->bytes) < 0)
                line->dropped++; /* its device is down */
            give_back(frame);
        } else if (next_random(&peers[at].random) < peers[at].loss_limit) {
            peers[at].lost++;
            give_back(frame);
        } else {
            forward(frame, at);
        }
    }
}

/* Let a peer's link be what five words say: rates, delay, jitter, loss. */
static void set_link(struct peer *peer, char **words) {
    double up_bps = atof(words[0]), down_bps = atof(words[1]);
    peer->up.ns_per_byte = up_bps > 0 ? 8e9 / up_bps : 0;
    peer->down.ns_per_byte = down_bps > 0 ? 8e9 / down_bps : 0;
    peer->up.delay_ns = (int64_t)(atof(words[2]) * 1000);
    peer->up.jitter_ns = (int64_t)(atof(words[3]) * 1000);
    peer->loss_limit = (uint64_t)(atof(words[4]) * (UINT64_MAX / 1000001.0)); /* below 2^64 for 1,000,000 as well */
}

static void open_peer(char **arguments, uint64_t seed) {
    struct peer *peer = &peers[count];
    struct ifreq request = {.ifr_name = "eth0", .ifr_flags = IFF_TAP | IFF_NO_PI};
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", arguments[0]);
    int namespace = open(path, O_RDONLY | O_CLOEXEC);
    if (namespace < 0 || setns(namespace, CLONE_NEWNET) < 0)
        fail(path);
    close(namespace);
    if ((peer->tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK)) < 0 || ioctl(peer->tap, TUNSETIFF, &request) < 0)
        fail("/dev/net/tun");
    set_link(peer, arguments + 1);
    peer->random = seed * 0x9E3779B97F4A7C15ULL + ++count * 0xD1B54A32D192ED03ULL;
    peer->up.random = peer->random ^ 0xA0761D6478BD642FULL;
}

static void say_counts(void) {
    printf("[");
    for (int i = 0; i < count; i++) {
        struct peer *p = &peers[i];
        printf("%s{\"frames_up\": %lu, \"bytes_up\": %lu, \"frames_down\": %lu, \"bytes_down\": %lu, "
               "\"lost\": %lu, \"dropped_up\": %lu, \"dropped_down\": %lu}",
               i ? ", " : "", p->up.frames, p->up.bytes, p->down.frames, p->down.bytes, p->lost, p->up.dropped,
               p->down.dropped);
    }
    puts("]");
    fflush(stdout);
}

/* Do what a line of stdin asks for. */
static void obey(char *line) {
    char *words[WORDS + 1];
    int many = 0;
    for (char *word = strtok(line, " "); word && many <= WORDS; word = strtok(NULL, " "))
        words[many++] = word;
    if (!many) {
        say_counts();
        return;
    }
    int index = atoi(words[0]);
    if (many != WORDS + 1 || index < 0 || index >= count)
        fail("a line on stdin that is no link");
    peers[index].side = atoi(words[1]);
    set_link(&peers[index], words + 2);
    puts("set");
    fflush(stdout);
}

/* Take in what is on stdin, line by line; return whether that was its end. */
static int hear(void) {
    static char line[256];
    static size_t length;
    char heard[256];
    ssize_t bytes = read(STDIN_FILENO, heard, sizeof heard);
    for (ssize_t i = 0; i < bytes; i++) {
        if (heard[i] != '\n' && length < sizeof line - 1) {
            line[length++] = heard[i];
            continue;
        }
        line[length] = 0;
        length = 0;
        obey(line);
    }
    return bytes < 1;
}

int main(int argc, char **argv) {
    if (argc < 2 + WORDS || (argc - 2) % WORDS || (argc - 2) / WORDS > MAX_PEERS)
        return fputs("usage: relay SEED [NAMESPACE UP_BPS DOWN_BPS DELAY_US JITTER_US LOSS_PPM]...\n", stderr), 2;
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    for (int at = 2; at < argc; at += WORDS)
        open_peer(argv + at, strtoull(argv[1], NULL, 10));
    if (home < 0 || setns(home, CLONE_NEWNET) < 0) /* or whoever ends what runs at the last peer would end the network */
        fail("/proc/self/ns/net");
    struct sched_param priority = {.sched_priority = 1};
    sched_setscheduler(0, SCHED_RR, &priority); /* it stands in for hardware, which has no need to wait for a core */
    prctl(PR_SET_TIMERSLACK, 1);
    puts("ready");
    fflush(stdout);
    struct pollfd watched[MAX_PEERS + 1] = {{.fd = STDIN_FILENO, .events = POLLIN}};
    for (int i = 0; i < count; i++)
        watched[i + 1] = (struct pollfd){.fd = peers[i].tap, .events = POLLIN};
    for (int64_t due_ns;;) {
        for (int i = 0; i < count; i++)
            if (watched[i + 1].revents & POLLIN)
                read_from(&peers[i]);
        due_ns = move();
        nanosleep(&(struct timespec){0, PAUSE_NS}, NULL);
        int64_t left_ns = due_ns - now_ns();
        struct timespec wait = {left_ns > 0 ? left_ns / 1000000000 : 0, left_ns > 0 ? left_ns % 1000000000 : 0};
        if (ppoll(watched, count + 1, due_ns < 0 ? NULL : &wait, NULL) < 0 && errno != EINTR)
            fail("poll");
        if (watched[0].revents && hear())
            return 0;
    }
}
