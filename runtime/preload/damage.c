#include "damage.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "family.h"
#include "real.h"
#include "report.h"

int refuse_damaged(struct attachment *at, int error) {
    if (error == -EIO && sealfs_failure(at->core) != NULL)
        stop_damaged(at, error); /* an errno would not do: loaders swallow it and go on without the file */
    return fail(-error);
}

void stop_damaged(struct attachment *at, int error) {
    const char *failure = sealfs_failure(at->core);

    if (failure == NULL)
        say("cannot go on reading in %s: %s", at->mount, strerror(-error));
    else
        say("INTEGRITY FAILURE in %s: %s. The process ends here, so that nothing is made of damaged data.", at->mount,
            failure);
    family_end();
    _exit(SEALFS_EXIT_INTEGRITY);
}

uint64_t sealed_size(struct attachment *at, uint32_t entry) {
    struct stat status;
    int error = sealfs_stat(at->core, entry, &status);

    if (error != 0)
        stop_damaged(at, error);
    return (uint64_t)status.st_size;
}
