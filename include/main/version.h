/* The version, said once in configure.ac. */
#ifndef MAIN_VERSION_H
#define MAIN_VERSION_H

#ifdef PACKAGE_VERSION
#define PGSLUICE_VERSION PACKAGE_VERSION
#else
#define PGSLUICE_VERSION "0.1.0"
#endif
/* The first line of --version, and what SHOW VERSION answers. */
#define PGSLUICE_VERSION_TEXT "pgsluice " PGSLUICE_VERSION

#endif
