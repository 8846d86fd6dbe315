"""What needs Apache Kafka itself."""
