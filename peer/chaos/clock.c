/* A clock that can be set, for one process tree: loaded before everything else (LD_PRELOAD), it adds to the time of day
 * the seconds that stand, as a double, in the file that SHOAL_CHAOS_CLOCK names. Clocks that count are left alone, as
 * when somebody sets a machine's clock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int (*real)(clockid_t, struct timespec *);
static const double *offset_s;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SHOAL_CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(double), PROT_READ, MAP_SHARED, file, 0);
    if (file >= 0)
        close(file);
    if (page != MAP_FAILED)
        offset_s = page;
    *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, at);
    if (!failed && offset_s && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        double whole = (double)(long)*offset_s;
        at->tv_sec += (time_t)whole;
        at->tv_nsec += (long)((*offset_s - whole) * 1e9);
        at->tv_sec += at->tv_nsec >= 1000000000L ? 1 : at->tv_nsec < 0 ? -1 : 0;
        at->tv_nsec = (at->tv_nsec + 1000000000L) % 1000000000L;
    }
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}
