"""Throw-away certificates, made by the openssl program."""

import os
import subprocess


class Certificates:
    """A certificate authority in a folder: ca.crt, and NAME.crt, NAME.key."""

    def __init__(self, folder, name="pgsluice test CA"):
        self.folder = folder
        self.ca = self.path("ca.crt")
        self._key("ca")
        self._openssl("req", "-x509", "-new", "-key", self.path("ca.key"),
                      "-subj", f"/CN={name}", "-days", "2", "-out", self.ca)

    def path(self, name):
        return os.path.join(self.folder, name)

    def issue(self, name, common_name, alternatives=(), days=2, kind="ec",
              digest="sha256"):
        """Returns the paths of a certificate and its key. alternatives are
        such as "DNS:localhost"; days may be negative: expired; kind is that
        of the key, "ec" or "rsa"; digest that of the signature."""
        key = self._key(name, kind)
        request = self.path(name + ".csr")
        extensions = self.path(name + ".ext")
        certificate = self.path(name + ".crt")
        self._openssl("req", "-new", "-key", key, "-out", request,
                      "-subj", f"/CN={common_name}")
        with open(extensions, "w", encoding="utf-8") as file:
            if alternatives:
                file.write("subjectAltName=" + ",".join(alternatives) + "\n")
        command = ["x509", "-req", "-in", request, "-CA", self.ca,
                   "-CAkey", self.path("ca.key"), "-out", certificate,
                   "-extfile", extensions, "-days", str(days),
                   "-" + digest]
        self._openssl(*command)
        return certificate, key

    def server(self, name="server", **how):
        """One that a client on this machine can verify in full."""
        return self.issue(name, "localhost", ["DNS:localhost",
                                              "IP:127.0.0.1", "IP:::1"],
                          **how)

    def _key(self, name, kind="ec"):
        path = self.path(name + ".key")
        if kind == "rsa":
            self._openssl("genrsa", "-out", path, "2048")
        else:
            self._openssl("ecparam", "-name", "prime256v1", "-genkey",
                          "-noout", "-out", path)
        os.chmod(path, 0o600)
        return path

    @staticmethod
    def _openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True,
                       capture_output=True)
