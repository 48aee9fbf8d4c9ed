/* The version as the console says it; configure.ac has it. */
#ifndef ADMIN_VERSION_H
#define ADMIN_VERSION_H

#ifdef PACKAGE_VERSION
#define PGSLUICE_VERSION PACKAGE_VERSION
#else
#define PGSLUICE_VERSION "unknown"
#endif

#endif
