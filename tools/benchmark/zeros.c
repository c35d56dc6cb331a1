/*
 * A file system that does nothing: every file is full of zeros that are there already. What it reaches is what
 * FUSE itself allows on this machine, before any decryption. It speaks the kernel's protocol without libfuse, on
 * one thread. Names with a dot are files, "big.bin" the large one; all others are directories.
 *
 *     bench_zeros MOUNTPOINT BIG_SIZE SMALL_SIZE
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <signal.h>
#include <unistd.h>

#define MAX_READ (1 << 20)
#define FOREVER (365 * 86400)
#define BIG (1ULL << 62) /* what a node is, is in its number: no table is needed */
#define FOLDER (1ULL << 61)

static char zeros[MAX_READ];
static char request[MAX_READ + 4096];
static uint64_t big_size, small_size;
static int device;

static void answer(uint64_t unique, int error, const void *data, size_t size)
{
	struct fuse_out_header out = {sizeof out + (error ? 0 : size), -error, unique};
	struct iovec parts[] = {{&out, sizeof out}, {(void *)data, size}};

	if (writev(device, parts, error || !size ? 1 : 2) < 0 && errno != ENOENT && errno != ENODEV)
		perror("bench_zeros: answering");
}

static struct fuse_attr attributes(uint64_t node)
{
	int is_folder = node == FUSE_ROOT_ID || node & FOLDER;
	struct fuse_attr attr = {.ino = node, .nlink = 1, .blksize = MAX_READ};

	attr.mode = is_folder ? S_IFDIR | 0755 : S_IFREG | 0444;
	attr.size = is_folder ? 0 : node & BIG ? big_size : small_size;
	return attr;
}

static void serve(const struct fuse_in_header *in, const void *argument)
{
	static uint64_t last = FUSE_ROOT_ID;

	switch (in->opcode) {
	case FUSE_INIT: {
		const struct fuse_init_in *init = argument;
		uint32_t wanted = FUSE_ASYNC_READ | FUSE_MAX_PAGES | FUSE_NO_OPEN_SUPPORT | FUSE_NO_OPENDIR_SUPPORT;
		struct fuse_init_out out = {
			.major = 7, .minor = 31, .max_readahead = init->max_readahead, .flags = init->flags & wanted,
			.max_background = 12, .congestion_threshold = 9, .max_write = MAX_READ, .time_gran = 1,
			.max_pages = MAX_READ / 4096,
		};
		answer(in->unique, 0, &out, sizeof out);
		break;
	}
	case FUSE_LOOKUP: {
		struct fuse_entry_out out = {.entry_valid = FOREVER, .attr_valid = FOREVER};

		out.nodeid = ++last;
		if (strcmp(argument, "big.bin") == 0)
			out.nodeid |= BIG;
		else if (!strchr(argument, '.'))
			out.nodeid |= FOLDER;
		out.attr = attributes(out.nodeid);
		answer(in->unique, 0, &out, sizeof out);
		break;
	}
	case FUSE_GETATTR: {
		struct fuse_attr_out out = {.attr_valid = FOREVER, .attr = attributes(in->nodeid)};

		answer(in->unique, 0, &out, sizeof out);
		break;
	}
	case FUSE_READ: {
		const struct fuse_read_in *read = argument;
		uint64_t size = in->nodeid & BIG ? big_size : small_size;
		uint64_t left = read->offset < size ? size - read->offset : 0;

		answer(in->unique, 0, zeros, left < read->size ? left : read->size);
		break;
	}
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	default: /* ENOSYS to open and flush: the kernel does without them from then on */
		answer(in->unique, ENOSYS, NULL, 0);
	}
}

int main(int count, char **arguments)
{
	char options[128];

	if (count != 4)
		return 2;
	big_size = strtoull(arguments[2], NULL, 10);
	small_size = strtoull(arguments[3], NULL, 10);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	memset(zeros, 0, sizeof zeros); /* memory of its own, as a decryptor's buffer is */
	device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,max_read=%d", device, MAX_READ);
	if (device < 0 || mount("zeros", arguments[1], "fuse.zeros", MS_RDONLY | MS_NOSUID | MS_NODEV, options) < 0) {
		perror("bench_zeros");
		return 1;
	}
	for (;;) {
		ssize_t received = read(device, request, sizeof request);

		if (received > 0)
			serve((void *)request, request + sizeof(struct fuse_in_header));
		else if (received < 0 && errno != EINTR && errno != EAGAIN && errno != ENOENT)
			return errno == ENODEV ? 0 : 1; /* ENODEV: unmounted */
	}
}
