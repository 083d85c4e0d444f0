# The image for a registry: the same files as `npm run image` makes, for each platform of
#
#   docker buildx build --platform linux/amd64,linux/arm64 --sbom=true --provenance=true -t NAME --push .
#
# Debian is where Node's binary, nft and iptables are taken from; nothing else of it is in the result: no shell, no
# package manager, and no file that could be written.
FROM node:26-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ make python3 nftables iptables util-linux \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Dependencies change less often than sources.
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts --include=dev --include=optional --no-audit --no-fund
COPY . .
RUN CULVERT_NO_APT=1 npm run -s build -- --quiet \
 && node scripts/image.mjs --rootfs /rootfs

FROM scratch
COPY --from=build /rootfs /
ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin MALLOC_ARENA_MAX=2 XTABLES_LOCKFILE=/tmp/xtables.lock
# As bin/culvert runs it; that file has the reasons.
ENTRYPOINT ["/opt/culvert/node", "--max-semi-space-size=4", "--disable-sigusr1", "/opt/culvert/culvert.mjs"]
