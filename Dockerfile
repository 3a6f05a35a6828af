# The static binary and nothing else. `make image` builds bin/cairn first:
# nothing is compiled or downloaded here, so the image is the binary that was
# tested, and building it takes a second and no network.
FROM scratch

# A numeric user, because scratch has no /etc/passwd. A fresh named volume takes
# its owner from the directory in the image, hence an empty one of that user.
COPY --chown=65532:65532 bin/data /data
COPY bin/cairn /cairn
USER 65532:65532
VOLUME /data

# 7070 data plane, 7080 router over HTTP, 4222 NATS clients, 6222 NATS servers.
EXPOSE 7070 7080 4222 6222

# Each service checks itself with `cairn health ADDR`; docker-compose.yml has the
# addresses. There is no /tmp because nothing needs one, and no certificate
# authorities: with NATS over TLS mount them and name them with --nats-ca.
ENTRYPOINT ["/cairn"]
CMD ["--help"]
