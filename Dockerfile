# An image for the CPU:
#   docker build -t faster-rcnn .
#   docker run --rm -v "$PWD/data:/app/data" -v "$PWD/output:/app/output" faster-rcnn python train.py --config ...
FROM python:3.11-slim
# g++ compiles the C++ kernels for the processor at the first start.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /app
# First the packages alone, so that a change of the code does not install them again. pip reads the version in src/__init__.py.
COPY pyproject.toml requirements.txt constraints.txt ./
COPY src/__init__.py src/
RUN pip install --no-cache-dir -r requirements.txt -c constraints.txt
COPY . .
CMD ["python", "train.py", "--help"]
