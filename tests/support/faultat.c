// SPDX-License-Identifier: GPL-3.0-or-later
//
// faultat: a fault at the Nth state-changing system call of a whole process tree.
//
//   faultat [-n N] [-m kill|errno|stick] [-e ERRNO] [-s all|write|sync|rename] [-p PREFIX] [-l LOG] -- COMMAND...
//
// Every thread and every child of COMMAND is traced with ptrace, and the system calls that change a file system are
// counted in the order in which they happen. At the Nth one
//
//   kill    everybody is killed before the call runs, and faultat ends with status 137 when the last one is gone;
//   errno   the call does not run and fails with ERRNO;
//   stick   this call and every later one fails with ERRNO.
//
// Without -n nothing is disturbed. -p counts only calls on files at or below PREFIX, which has to be an absolute path
// without links; what the programs do elsewhere (caches, a store) is then neither counted nor disturbed. -l writes one
// line a counted call: its number, its process, its name and, with -p, the file. -s narrows the counting to one kind.
//
// Otherwise faultat ends as COMMAND does: with its status, or 128 and the number of the signal that ended it.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/ptrace.h> // after sys/ptrace.h, which can't bear its macros

#ifndef __x86_64__
#error "faultat changes registers, and knows those of x86_64 only"
#endif

enum mode { KILL, ERRNO_ONCE, ERRNO_FROM };
enum kind { WRITE = 1, SYNC = 2, RENAME = 4, OTHER = 8, ALL = 15 };

// Where a call names the files that it changes.
enum place {
    FD0,        // the descriptor in argument 0
    FD2,        // the descriptor in argument 2
    PATH0,      // the path in argument 0
    PATH1,      // the path in argument 1
    PATHS01,    // the paths in arguments 0 and 1
    AT0,        // the folder in argument 0, the path in argument 1
    AT1,        // the folder in argument 1, the path in argument 2
    AT0AT2,     // two pairs of folder and path
    NOWHERE,    // it names none: it counts wherever it happens
};

struct call {
    long number;
    const char *name;
    int kinds;
    enum place place;
};

static const struct call calls[] = {
    {SYS_write, "write", WRITE, FD0},
    {SYS_pwrite64, "pwrite64", WRITE, FD0},
    {SYS_writev, "writev", WRITE, FD0},
    {SYS_pwritev, "pwritev", WRITE, FD0},
    {SYS_pwritev2, "pwritev2", WRITE, FD0},
    {SYS_sendfile, "sendfile", WRITE, FD0},
    {SYS_copy_file_range, "copy_file_range", WRITE, FD2},
    {SYS_fallocate, "fallocate", WRITE, FD0},
    {SYS_ftruncate, "ftruncate", WRITE, FD0},
    {SYS_truncate, "truncate", WRITE, PATH0},
    {SYS_open, "open", WRITE, PATH0},
    {SYS_creat, "creat", WRITE, PATH0},
    {SYS_openat, "openat", WRITE, AT0},
    {SYS_openat2, "openat2", WRITE, AT0},
    {SYS_mkdir, "mkdir", WRITE, PATH0},
    {SYS_mkdirat, "mkdirat", WRITE, AT0},
    {SYS_mknod, "mknod", WRITE, PATH0},
    {SYS_mknodat, "mknodat", WRITE, AT0},
    {SYS_symlink, "symlink", WRITE, PATH1},
    {SYS_symlinkat, "symlinkat", WRITE, AT1},
    {SYS_link, "link", WRITE | RENAME, PATHS01},
    {SYS_linkat, "linkat", WRITE | RENAME, AT0AT2},
    {SYS_rename, "rename", WRITE | RENAME, PATHS01},
    {SYS_renameat, "renameat", WRITE | RENAME, AT0AT2},
    {SYS_renameat2, "renameat2", WRITE | RENAME, AT0AT2},
    {SYS_fsync, "fsync", SYNC, FD0},
    {SYS_fdatasync, "fdatasync", SYNC, FD0},
    {SYS_sync_file_range, "sync_file_range", SYNC, FD0},
    {SYS_syncfs, "syncfs", SYNC, FD0},
    {SYS_sync, "sync", SYNC, NOWHERE},
    {SYS_unlink, "unlink", OTHER, PATH0},
    {SYS_unlinkat, "unlinkat", OTHER, AT0},
    {SYS_rmdir, "rmdir", OTHER, PATH0},
    {SYS_chmod, "chmod", OTHER, PATH0},
    {SYS_fchmod, "fchmod", OTHER, FD0},
    {SYS_fchmodat, "fchmodat", OTHER, AT0},
};

static long fault_at = 0;
static enum mode mode = KILL;
static int error_number = ENOSPC;
static int wanted = ALL;
static const char *prefix = NULL;
static FILE *log_file = NULL;
static char last_path[2 * PATH_MAX + 16]; // what the call under way was found to change

// -- looking into a tracee --------------------------------------------------------------------------------------------

static bool link_target(char *target, const char *format, pid_t process, int descriptor) {
    char name[64];
    snprintf(name, sizeof name, format, process, descriptor);
    ssize_t length = readlink(name, target, PATH_MAX - 1);
    if (length <= 0) return false;
    target[length] = 0;
    return true;
}

static bool read_path(pid_t process, unsigned long address, char *path) {
    for (size_t at = 0; at < PATH_MAX; at += sizeof(long)) {
        errno = 0;
        long word = ptrace(PTRACE_PEEKDATA, process, address + at, 0);
        if (errno) return false;
        memcpy(path + at, &word, sizeof word);
        if (memchr(&word, 0, sizeof word)) return true;
    }
    return false;
}

static bool below_prefix(const char *path) {
    size_t length = strlen(prefix);
    if (strncmp(path, prefix, length) || (path[length] != 0 && path[length] != '/')) return false;
    snprintf(last_path, sizeof last_path, "%s", path);
    return true;
}

static bool path_wanted(pid_t process, int folder, unsigned long address) {
    char path[PATH_MAX + sizeof(long)], start[PATH_MAX], whole[2 * PATH_MAX + 8];
    if (!prefix) return true;
    if (!read_path(process, address, path)) return false;
    if (path[0] == '/') return below_prefix(path);
    bool known = folder == AT_FDCWD ? link_target(start, "/proc/%d/cwd", process, 0)
                                    : link_target(start, "/proc/%d/fd/%d", process, folder);
    if (!known) return false;
    const char *rest = path;
    while (!strncmp(rest, "./", 2)) rest += 2;
    snprintf(whole, sizeof whole, "%s/%s", start, rest);
    return below_prefix(whole);
}

// A descriptor counts when a file is behind it: no pipe, socket, terminal or other device.
static bool descriptor_wanted(pid_t process, int descriptor) {
    char target[PATH_MAX];
    if (!link_target(target, "/proc/%d/fd/%d", process, descriptor) || target[0] != '/') return false;
    if (prefix) return below_prefix(target);
    return (!strncmp(target, "/dev/shm/", 9) || strncmp(target, "/dev/", 5)) && strncmp(target, "/proc/", 6);
}

static bool opens_only(pid_t process, long number, const unsigned long long *args) {
    unsigned long flags;
    switch (number) {
    case SYS_open: flags = args[1]; break;
    case SYS_openat: flags = args[2]; break;
    case SYS_openat2: flags = ptrace(PTRACE_PEEKDATA, process, args[2], 0); break; // the first member of struct open_how
    default: return false;
    }
    return !(flags & (O_CREAT | O_TRUNC));
}

static bool place_wanted(pid_t process, enum place place, const unsigned long long *args) {
    switch (place) {
    case FD0: return descriptor_wanted(process, (int)args[0]);
    case FD2: return descriptor_wanted(process, (int)args[2]);
    case PATH0: return path_wanted(process, AT_FDCWD, args[0]);
    case PATH1: return path_wanted(process, AT_FDCWD, args[1]);
    case PATHS01: return path_wanted(process, AT_FDCWD, args[0]) || path_wanted(process, AT_FDCWD, args[1]);
    case AT0: return path_wanted(process, (int)args[0], args[1]);
    case AT1: return path_wanted(process, (int)args[1], args[2]);
    case AT0AT2: return path_wanted(process, (int)args[0], args[1]) || path_wanted(process, (int)args[2], args[3]);
    case NOWHERE: return true;
    }
    return false;
}

static const struct call *counted(pid_t process, const struct ptrace_syscall_info *info) {
    for (size_t at = 0; at < sizeof calls / sizeof *calls; at++) {
        const struct call *call = &calls[at];
        if (call->number != (long)info->entry.nr) continue;
        if (!(call->kinds & wanted) || opens_only(process, call->number, info->entry.args)) return NULL;
        return place_wanted(process, call->place, info->entry.args) ? call : NULL;
    }
    return NULL;
}

// -- the tracees ------------------------------------------------------------------------------------------------------

static pid_t *tracees = NULL;
static size_t tracee_count = 0;
static unsigned char failing[(1 << 22) / 8]; // one bit for each process id whose call under way has to fail

static void remember(pid_t process) {
    for (size_t at = 0; at < tracee_count; at++)
        if (tracees[at] == process) return;
    tracees = realloc(tracees, (tracee_count + 1) * sizeof *tracees);
    if (!tracees) abort();
    tracees[tracee_count++] = process;
}

static void forget(pid_t process) {
    for (size_t at = 0; at < tracee_count; at++)
        if (tracees[at] == process) tracees[at] = tracees[--tracee_count];
}

// Whoever waits for us at the entry of a call never makes it, and whoever runs is killed in the middle: a real SIGKILL.
static void kill_everybody(void) {
    int status;
    for (size_t at = 0; at < tracee_count; at++) kill(tracees[at], SIGKILL);
    for (pid_t process; (process = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR;)
        if (process > 0 && WIFSTOPPED(status)) kill(process, SIGKILL);
}

static void skip_call(pid_t process) {
    struct user_regs_struct registers;
    ptrace(PTRACE_GETREGS, process, 0, &registers);
    registers.orig_rax = -1;
    ptrace(PTRACE_SETREGS, process, 0, &registers);
    failing[process / 8] |= 1 << (process % 8);
}

static void fail_call(pid_t process) {
    struct user_regs_struct registers;
    ptrace(PTRACE_GETREGS, process, 0, &registers);
    registers.rax = -error_number;
    ptrace(PTRACE_SETREGS, process, 0, &registers);
    failing[process / 8] &= ~(1 << (process % 8));
}

static void at_call(pid_t process) {
    static long count = 0;
    struct ptrace_syscall_info info;
    memset(&info, 0, sizeof info);
    if (ptrace(PTRACE_GET_SYSCALL_INFO, process, sizeof info, &info) < 0) return;
    if (info.op == PTRACE_SYSCALL_INFO_EXIT && failing[process / 8] >> (process % 8) & 1) fail_call(process);
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) return;
    const struct call *call = counted(process, &info);
    if (!call) return;
    count++;
    if (log_file) fprintf(log_file, "%ld %d %s %s\n", count, process, call->name, last_path);
    if (!fault_at || count < fault_at || (count > fault_at && mode != ERRNO_FROM)) return;
    if (mode == KILL) {
        if (log_file) fclose(log_file);
        kill_everybody();
        _exit(128 + SIGKILL);
    }
    skip_call(process);
}

static int follow(pid_t first) {
    int status, result = 0;
    for (pid_t process; (process = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR;) {
        if (process <= 0) continue;
        if (!WIFSTOPPED(status)) {
            forget(process);
            if (process == first) result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            continue;
        }
        remember(process);
        int number = WSTOPSIG(status);
        bool ours = number == SIGTRAP || number == SIGSTOP; // an event, or the first stop of a new tracee
        if (number == (SIGTRAP | 0x80)) at_call(process);
        ptrace(PTRACE_SYSCALL, process, 0, ours || number == (SIGTRAP | 0x80) ? 0 : number);
    }
    return result;
}

static int kinds_named(const char *name) {
    if (!strcmp(name, "write")) return WRITE;
    if (!strcmp(name, "sync")) return SYNC;
    if (!strcmp(name, "rename")) return RENAME;
    if (!strcmp(name, "all")) return ALL;
    return 0;
}

static void usage(void) {
    fputs("usage: faultat [-n N] [-m kill|errno|stick] [-e ERRNO] [-s all|write|sync|rename] [-p PREFIX] [-l LOG]"
          " -- COMMAND...\n",
          stderr);
    exit(2);
}

static void parse(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "+n:m:e:s:p:l:")) != -1;) switch (option) {
        case 'n': fault_at = atol(optarg); break;
        case 'm':
            if (!strcmp(optarg, "kill")) mode = KILL;
            else if (!strcmp(optarg, "errno")) mode = ERRNO_ONCE;
            else if (!strcmp(optarg, "stick")) mode = ERRNO_FROM;
            else usage();
            break;
        case 'e': error_number = atoi(optarg); break;
        case 's':
            if (!(wanted = kinds_named(optarg))) usage();
            break;
        case 'p': prefix = optarg; break;
        case 'l':
            if (!(log_file = fopen(optarg, "we"))) usage();
            break;
        default: usage();
        }
    if (optind >= argc) usage();
}

int main(int argc, char **argv) {
    parse(argc, argv);
    pid_t first = fork();
    if (first < 0) return 2;
    if (!first) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execvp(argv[optind], argv + optind);
        _exit(127);
    }
    waitpid(first, NULL, 0);
    remember(first);
    long options = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                   PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
    if (ptrace(PTRACE_SETOPTIONS, first, 0, options) < 0) {
        perror("faultat: ptrace");
        return 2;
    }
    ptrace(PTRACE_SYSCALL, first, 0, 0);
    int result = follow(first);
    if (log_file) fclose(log_file);
    return result;
}
